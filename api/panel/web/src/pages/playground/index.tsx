import { lazy } from "./lazy";
import { useLocation } from "wouter-preact";
import { Page } from "../../ui/Page";
import { Tabs } from "../../ui/Tabs";
import { Chat } from "./Chat";
import "./playground.css";

const Embeddings = lazy(() => import("./embeddings/Embeddings").then((module) => module.Embeddings));

/** `#/playground` is the chat, `#/playground/embeddings` what is behind the other tab. */
export default function Playground() {
  const [path, go] = useLocation();
  const current = path.endsWith("/embeddings") ? "embeddings" : "chat";
  return (
    <Page title="Playground">
      <Tabs
        label="What to try"
        tabs={[["chat", "Chat"], ["embeddings", "Embeddings"]] as const}
        current={current}
        onCurrent={(id) => go(id === "chat" ? "/playground" : "/playground/embeddings", { replace: true })}
      >
        {current === "chat" ? <Chat /> : <Embeddings />}
      </Tabs>
    </Page>
  );
}
