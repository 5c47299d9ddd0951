"""Files and batches of requests, as both sides know them: balancers take and show them, workers run them."""
