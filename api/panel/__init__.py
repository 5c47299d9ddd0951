"""The web admin panel (`--web-admin-panel-addr`): its files, its data and who may see them, on one address."""
