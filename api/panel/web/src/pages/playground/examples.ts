export const EXAMPLE_TOOLS = `[
  {
    "type": "function",
    "function": {
      "name": "weather",
      "description": "The weather of a city.",
      "parameters": {
        "type": "object",
        "properties": { "city": { "type": "string", "maxLength": 40 } },
        "required": ["city"]
      }
    }
  }
]`;

export const EXAMPLE_SCHEMA = `{
  "type": "object",
  "properties": {
    "name": { "type": "string", "maxLength": 40 },
    "age": { "type": "integer", "minimum": 0, "maximum": 120 }
  },
  "required": ["name", "age"]
}`;
