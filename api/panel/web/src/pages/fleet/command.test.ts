// @vitest-environment node
import { expect, test } from "vitest";
import { agentCommand, checkName, checkSlots } from "./command";

const joining = { redis_url: "redis://10.0.0.1:6379/0", redis_prefix: "paddler", is_local: false, has_secret: false, file_flags: [] };

test("the command has what is not the default", () => {
  expect(agentCommand(joining, { name: "", slots: "4", pool: "default" })).toBe("paddler agent --slots 4 --redis-url redis://10.0.0.1:6379/0");
  expect(agentCommand({ ...joining, redis_prefix: "own" }, { name: "gpu-1", slots: "8", pool: "big" })).toBe(
    "paddler agent --slots 8 --name gpu-1 --pool big --redis-url redis://10.0.0.1:6379/0 --redis-prefix own",
  );
});

test("what a shell would take apart is quoted", () => {
  const redis_url = "unix:///run/it's here/redis.sock?db=0";
  expect(agentCommand({ ...joining, redis_url }, { name: "", slots: "1", pool: "default" })).toContain(`'unix:///run/it'"'"'s here/redis.sock?db=0'`);
});

test("names and slots are checked before anything is shown to copy", () => {
  expect([checkName(""), checkName("agent-2")]).toEqual([null, null]);
  expect([checkName("a b"), checkName("$(reboot)"), checkSlots("0"), checkSlots("257"), checkSlots("x")].every((wrong) => wrong !== null)).toBe(true);
});
