/** Tools and schemas, checked before they are sent: the server enforces a schema in full or refuses it. */
import { readJson } from "./params";

export interface Tool {
  type: "function";
  function: { name: string; description?: string; parameters?: unknown };
}

const CANNOT = ["uniqueItems", "not", "if", "then", "else", "contains", "patternProperties", "multipleOf", "dependentSchemas", "unevaluatedProperties"];
const NAME = /^[A-Za-z0-9_.-]{1,64}$/;
const MAX_TOOLS = 128;
const TYPES = ["string", "number", "integer", "boolean", "object", "array", "null"];

/** A JSON schema. Throws an `Error` that names the place. */
export function readSchema(text: string): object {
  const schema = readJson(text);
  if (!isObject(schema)) throw new Error("A schema is a JSON object.");
  checkSchema(schema, "");
  return schema;
}

/** A list of tools as OpenAI has it; a tool, or a function alone, is taken for a list of one. */
export function readTools(text: string): Tool[] {
  const value = readJson(text);
  const list = Array.isArray(value) ? value : [value];
  if (list.length === 0) throw new Error("A list of tools has at least one.");
  if (list.length > MAX_TOOLS) throw new Error(`At most ${MAX_TOOLS} tools.`);
  const tools = list.map(readTool);
  const names = tools.map((tool) => tool.function.name);
  const twice = names.find((name, at) => names.indexOf(name) !== at);
  if (twice !== undefined) throw new Error(`Two tools are called ${twice}.`);
  return tools;
}

function readTool(value: unknown, at: number): Tool {
  const where = `Tool ${at + 1}`;
  if (!isObject(value)) throw new Error(`${where} is no object.`);
  const named = isObject(value.function) ? value.function : typeof value.name === "string" ? value : null;
  if (named === null) throw new Error(`${where} has no "function" with a "name".`);
  if (value.type !== undefined && value.type !== "function") throw new Error(`${where}: only the type "function" can be called.`);
  const { name, description, parameters } = named;
  if (typeof name !== "string" || !NAME.test(name)) throw new Error(`${where}: a name has 1 to 64 letters, digits, "_", "-" or ".".`);
  if (description !== undefined && typeof description !== "string") throw new Error(`${where} (${name}): "description" is a text.`);
  if (parameters !== undefined) {
    if (!isObject(parameters)) throw new Error(`${where} (${name}): "parameters" is a JSON schema.`);
    checkSchema(parameters, `/${name}/parameters`);
  }
  return { type: "function", function: named as Tool["function"] };
}

function checkSchema(schema: Record<string, unknown>, place: string): void {
  const where = place || "/";
  const bad = CANNOT.find((keyword) => keyword in schema);
  if (bad !== undefined) throw new Error(`"${bad}" cannot be enforced; leave it out (at ${where}).`);
  const types = Array.isArray(schema.type) ? schema.type : schema.type === undefined ? [] : [schema.type];
  const unknown = types.find((type) => !TYPES.includes(type as string));
  if (unknown !== undefined) throw new Error(`${JSON.stringify(unknown)} is no type (at ${where}); one of ${TYPES.join(", ")}.`);
  const { properties, required, items } = schema;
  if (properties !== undefined && !isObject(properties)) throw new Error(`"properties" is an object (at ${where}).`);
  if (required !== undefined && !(Array.isArray(required) && required.every((one) => typeof one === "string"))) {
    throw new Error(`"required" is a list of names (at ${where}).`);
  }
  for (const group of ["properties", "$defs", "definitions"]) {
    const named = schema[group];
    if (!isObject(named)) continue;
    for (const [name, one] of Object.entries(named)) {
      if (isObject(one)) checkSchema(one, `${place}/${group}/${name}`);
      else if (typeof one !== "boolean") throw new Error(`${place}/${group}/${name} is no schema.`);
    }
  }
  if (isObject(items)) checkSchema(items, `${place}/items`);
  for (const group of ["anyOf", "oneOf", "allOf", "prefixItems"]) {
    const list = schema[group];
    if (list !== undefined && !Array.isArray(list)) throw new Error(`"${group}" is a list (at ${where}).`);
    list?.forEach((one, at) => isObject(one) && checkSchema(one, `${place}/${group}/${at}`));
  }
}

/** What is wrong with the text of a field, null for nothing. */
export function faultIn(read: (text: string) => unknown, text: string): string | null {
  if (text.trim() === "") return null;
  try {
    read(text);
    return null;
  } catch (error) {
    return (error as Error).message;
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
