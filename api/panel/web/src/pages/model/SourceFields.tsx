import { useId } from "preact/hooks";
import { TextField } from "../../ui/Field";
import type { Errors } from "./draft";
import { withAddress, type Source, type SourceKind } from "./source";

const KINDS: readonly (readonly [SourceKind, string])[] = [
  ["HuggingFace", "Hugging Face"],
  ["Url", "Web address"],
  ["LocalToAgent", "Path on the agents"],
  ["None", "None"],
];

interface Props {
  legend: string;
  hint?: string;
  /** Where it stands in the state: `model`, `multimodal_projection`. */
  path: string;
  source: Source;
  errors: Errors;
  onSource: (source: Source) => void;
}

/** Where a file comes from. An address that is pasted into any field goes where it belongs. */
export function SourceFields({ legend, hint, path, source, errors, onSource }: Props) {
  const name = useId();
  const error = (field: keyof Source) => errors.get(`${path}.${field}`);
  const set = (part: Partial<Source>) => onSource({ ...source, ...part });
  const other = [...errors].find(([at]) => at === path || (at.startsWith(`${path}.`) && !(at.slice(path.length + 1) in source)));
  return (
    <div class="model-block">
      <fieldset class="model-source" aria-describedby={hint ? `${name}-hint` : undefined}>
        <legend>{legend}</legend>
        {hint && <p id={`${name}-hint`} class="muted small">{hint}</p>}
        <div class="choices">
          {KINDS.map(([kind, shown]) => (
            <label key={kind} class={kind === source.kind ? "choice chosen" : "choice"}>
              <input type="radio" name={name} value={kind} checked={kind === source.kind} onChange={() => set({ kind })} />
              {shown}
            </label>
          ))}
        </div>
        {source.kind === "HuggingFace" && (
          <div class="model-source-fields three">
            <TextField label="Repository" hint="Owner and name; or paste the address of the file's page." placeholder="Qwen/Qwen3-0.6B-GGUF" value={source.repo} error={error("repo")} onValue={(text) => onSource(withAddress(source, "repo", text))} />
            <TextField label="File" hint="Of a model in several files the first." placeholder="Qwen3-0.6B-Q8_0.gguf" value={source.file} error={error("file")} onValue={(file) => set({ file })} />
            <TextField label="Revision" hint="A branch, a tag or a commit." value={source.revision} error={error("revision")} onValue={(revision) => set({ revision })} />
          </div>
        )}
        {source.kind === "Url" && (
          <div class="model-source-fields two">
            <TextField label="Address" hint="https:// or http://, of the file itself." placeholder="https://example.org/model.gguf" value={source.url} error={error("url")} onValue={(text) => onSource(withAddress(source, "url", text))} />
            <TextField label="SHA-256" hint="If given, the file is used only with this digest." value={source.sha256} error={error("sha256")} onValue={(sha256) => set({ sha256 })} spellcheck={false} />
          </div>
        )}
        {source.kind === "LocalToAgent" && (
          <TextField label="Path" hint="On each agent's machine; written agent:///models/model.gguf as an address." placeholder="/models/model.gguf" value={source.path} error={error("path")} onValue={(text) => onSource(withAddress(source, "path", text))} spellcheck={false} />
        )}
        {other && <p class="model-error" role="alert">{other[1]}</p>}
      </fieldset>
    </div>
  );
}
