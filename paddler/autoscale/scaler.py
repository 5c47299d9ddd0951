"""When to start and stop which agent: a pure state machine, events with their time in, effects out.

- **Out**: as soon as more are needed than serve or are coming, first by letting those that drain take requests again.
  One that loads counts, and so does one that is stuck: whatever keeps it would keep the next one, too.
- **In**: down to the most that was needed within the cooldown. Chosen are those that are stuck, then idle, then load,
  the newest of them; each is drained, what runs there ends, and only then it is stopped. So is one that was given up
  and is back when it is to be stopped again.
- **Failure**: a start that comes to nothing, a crash within `STEADY_S` of being ready, and an agent that gets stuck let
  the next start wait, twice as long each time; then one agent at a time is tried, until one is steady.
- While nobody can look (`on_blind`) nothing is decided, and no time passes for what is waited for.
"""

from __future__ import annotations

import re

from paddler.autoscale.backoff import Backoff
from paddler.autoscale.effects import Drain, Effect, Say, Start, Stop, Undrain
from paddler.autoscale.instance import Instance, Phase
from paddler.autoscale.policy import Policy, Window
from paddler.autoscale.seen import Condition, Seen, SeenAgent

LOOK_S = 1.0
MISSING_S = 60.0
"""An agent that lost its lease registers again within seconds; after an outage of Redis all of them do."""
STILL_S = 60.0
STOP_RETRY_S = 5.0
MAX_STOP_RETRY_S = 300.0


class Scaler:
    """One pool's. Agents are called `<prefix>-<number>`, the lowest that is free: a start that crashed is known by its
    agent's name (`workers/agent/mark.py`). `ends_with_us`: agents end when the autoscaler is told to."""

    def __init__(self, policy: Policy, prefix: str, *, ends_with_us: bool) -> None:
        self.policy = policy
        self.instances: dict[str, Instance] = {}
        self.backoff = Backoff()
        self.wanted = policy.least
        self.demand = 0
        self.held = ""
        """Why no agent is started although one is needed; empty when none is, or it is being started."""
        self.is_stopping = False
        self.drained: set[str] = set()
        """Names of agents whose drain is ours, not an operator's: Redis keeps it even if we forget the agent."""
        self._prefix = prefix
        self._name = re.compile(re.escape(prefix) + r"-[1-9]\d*")
        self._ends_with_us = ends_with_us
        self._window = Window(policy.cooldown_s)
        self._version: int | None = None

    def is_name(self, name: str) -> bool:
        """Whether an agent of this name is one that this autoscaler would have started."""
        return self._name.fullmatch(name) is not None

    @property
    def is_done(self) -> bool:
        return self.is_stopping and not (self._ends_with_us and self.instances)

    def next_time(self, now: float) -> float | None:
        """When to look again, if nothing happens before; None: when it is convenient."""
        instances = self.instances.values()
        times = [one.stop_at for one in instances if one.stop_at is not None]
        if self.wanted > self._num_useful() and self.backoff.failures:
            times.append(max(self.backoff.next_start, now + LOOK_S))
        # Requests that end are not told of: as long as agents may have to go somebody has to look.
        if self._num_useful() > self.policy.least or any(map(_is_moving, instances)):
            times.append(now + LOOK_S)
        return min(times, default=None)

    # Events

    def on_seen(self, seen: Seen, now: float) -> list[Effect]:
        """A look at the pool. Raises nothing, whatever is seen."""
        if self.is_stopping:
            return []
        effects = self._note_version(seen.version)
        ours: dict[str, SeenAgent] = {}
        for agent in seen.agents:
            if agent.is_ours and (agent.name not in ours or agent.is_serving):
                ours[agent.name] = agent
        for instance in list(self.instances.values()):
            effects += self._meet(instance, ours.get(instance.name), now)
        effects += self._adopt([agent for name, agent in ours.items() if name not in self.instances], now)
        self.demand, self.wanted = seen.demand, self.policy.need(seen.demand, seen.foreign_slots)
        self._window.add(self.wanted, now)
        self.held = ""
        lacking = self.wanted - self._num_useful()
        decided = self._more(lacking, seen, now) if lacking > 0 else self._fewer(now)
        called_back = {effect.agent_id for effect in decided if isinstance(effect, Undrain)}
        return [one for one in effects if not isinstance(one, Drain) or one.agent_id not in called_back] + decided

    def on_blind(self, now: float) -> None:
        """The pool could not be looked at."""
        self._window.forget()
        for instance in self.instances.values():
            instance.missing_since = None
            if instance.phase is Phase.STARTING:
                instance.since = now

    def on_started(self, name: str, now: float, *, pid: int | None = None, host: str = "") -> list[Effect]:
        """The driver has done what it can to start it."""
        instance = self.instances.get(name)
        if instance is None or instance.phase is not Phase.LAUNCHING:
            return []
        instance.pid, instance.host = pid, host
        instance.enter(Phase.STARTING, now)
        return self._stop(instance, now) if self.is_stopping else []

    def on_start_failed(self, name: str, why: str, now: float, *, is_final: bool = False) -> list[Effect]:
        """`is_final`: another try would end the same. What there is of it, a machine without an agent perhaps, is
        stopped."""
        instance = self.instances.get(name)
        if instance is None or instance.phase is not Phase.LAUNCHING:
            return []
        if instance.is_known:
            instance.enter(Phase.STARTING, now)
            return [Say("started, although the driver says otherwise", {"agent": name, "why": why}, is_problem=True)]
        return [self._fail(f"{name} could not be started: {why}", now, is_final), *self._stop(instance, now)]

    def on_not_started(self, name: str) -> None:
        """Nobody has tried, nor will."""
        self.instances.pop(name, None)

    def on_held_back(self, name: str, now: float) -> None:
        """What was to be started or stopped is not: somebody else may act, or nobody can write down what we do."""
        instance = self.instances.get(name)
        if instance is not None and instance.phase is Phase.STOPPING:
            instance.stop_at = now
        elif instance is not None and instance.phase is Phase.LAUNCHING:
            instance.is_due = instance.is_resumed
            if not instance.is_resumed:
                self.on_not_started(name)

    def on_ended(
        self, name: str, how: str, now: float, *, was_asked: bool = False, is_final: bool = False
    ) -> list[Effect]:
        """Its process has ended by itself. `was_asked`: by its exit code somebody has told it to."""
        instance = self.instances.get(name)
        if instance is None or instance.phase in (Phase.STOPPING, Phase.STOPPED):
            return []
        del self.instances[name]
        was_leaving = instance.agent is not None and instance.agent.condition is Condition.OTHER
        if was_asked or was_leaving or instance.phase is Phase.DRAINING:
            return [Say("has ended, as it was told to", {"agent": name, "how": how})]
        if instance.is_steady(now):
            return [Say("has crashed", {"agent": name, "how": how}, is_problem=True)]
        return [self._fail(f"{name} {how}", now, is_final)]

    def on_stopped(self, name: str, now: float) -> list[Effect]:
        """The driver is done with it."""
        instance = self.instances.get(name)
        if instance is not None and instance.phase is Phase.STOPPING:
            instance.enter(Phase.STOPPED, now)
            if self.is_stopping or not instance.is_known:
                del self.instances[name]
            return [Say("stopped", {"agent": name})]
        return []

    def on_stop_failed(self, name: str, why: str, now: float) -> list[Effect]:
        """It takes no requests. One that never came is nobody's concern any more."""
        instance = self.instances.get(name)
        if instance is None or instance.phase is not Phase.STOPPING:
            return []
        told = {"agent": name, "why": why}
        if self.is_stopping or not instance.is_known:
            del self.instances[name]
            return [Say("could not be stopped and is left behind", told, is_problem=True)]
        delay = min(STOP_RETRY_S * 2.0 ** min(instance.num_stops, 20), MAX_STOP_RETRY_S)
        instance.num_stops, instance.stop_at = instance.num_stops + 1, now + delay
        return [Say("could not be stopped", {**told, "again_in_s": delay}, is_problem=True)]

    def on_stop(self, now: float) -> list[Effect]:
        """The autoscaler is told to end. Agents that end with it drain by themselves, as on any SIGTERM."""
        self.is_stopping = True
        # Whoever starts it again has perhaps mended what was wrong.
        self.backoff.succeed()
        self.held = ""
        if not self._ends_with_us:
            return []
        for name in [one.name for one in self.instances.values() if one.phase is Phase.STOPPED]:
            del self.instances[name]
        # The driver is at the others, and will say so.
        going = [one for one in self.instances.values() if one.phase in _STANDING or one.stop_at is not None]
        return [effect for one in going for effect in self._stop(one, now)]

    # What has become of each

    def _meet(self, instance: Instance, agent: SeenAgent | None, now: float) -> list[Effect]:
        if agent is not None:
            instance.saw(agent, now)
        match instance.phase:
            case Phase.LAUNCHING if instance.is_due and agent is None:
                instance.is_due = False
                return [Say("starting, as the autoscaler before was", {"agent": instance.name}), Start(instance.name)]
            case Phase.LAUNCHING if instance.is_due and agent is not None:
                instance.is_due = False
                instance.enter(Phase.UP, now)
                return [Say("is in its pool", {"agent": instance.name, "id": agent.agent_id})]
            case Phase.STARTING if agent is not None:
                instance.enter(Phase.UP, now)
                return [Say("is in its pool", {"agent": instance.name, "id": agent.agent_id})]
            case Phase.STARTING if now - instance.since >= self.policy.start_timeout_s:
                why = f"{instance.name} has not come into its pool within {self.policy.start_timeout_s:g} s"
                return [self._fail(why, now), *self._stop(instance, now)]
            case Phase.UP | Phase.DRAINING if agent is None:
                return self._miss(instance, now)
            case Phase.UP if agent is not None:
                return self._look_after(instance, agent, now)
            case Phase.DRAINING if agent is not None:
                # One look may be older than the order; what counts is what Redis says of it.
                if not agent.is_draining:
                    return [Drain(agent.agent_id)]
                return [] if agent.requests else self._stop(instance, now)
            case Phase.STOPPING if instance.stop_at is not None and now >= instance.stop_at:
                if agent is not None and _is_at_work(agent):
                    return self._drain(instance, agent, now)
                instance.stop_at = None
                return [Stop(instance.name)]
            case Phase.STOPPED if agent is None:
                del self.instances[instance.name]
            case Phase.STOPPED if agent is not None and now - instance.since >= STILL_S:
                return self._drain(instance, agent, now) if _is_at_work(agent) else self._stop(instance, now)
            case _:
                pass
        return []

    def _miss(self, instance: Instance, now: float) -> list[Effect]:
        if instance.missing_since is None:
            instance.missing_since = now
        if now - instance.missing_since < MISSING_S:
            return []
        gone = f"{instance.name} has been gone from its pool for {MISSING_S:g} s"
        was_well = instance.phase is Phase.DRAINING or instance.is_steady(instance.missing_since)
        told = Say("has gone from its pool", {"agent": instance.name}, is_problem=True)
        return [told if was_well else self._fail(gone, now), *self._stop(instance, now)]

    def _look_after(self, instance: Instance, agent: SeenAgent, now: float) -> list[Effect]:
        if instance.is_undraining:
            if agent.is_draining and agent.condition is not Condition.OTHER:
                return [Undrain(agent.agent_id)]
            instance.is_undraining = False
        if self._is_drained_by_us(agent):
            instance.enter(Phase.DRAINING, now)
            return []
        if not agent.is_draining:
            self.drained.discard(agent.name)
        if instance.is_stuck and instance.stuck_id != agent.agent_id:
            instance.stuck_id = agent.agent_id
            return [self._fail(f"{instance.name} is stuck: {agent.trouble}", now)]
        failed_at, ready_since = self.backoff.failed_at, instance.ready_since
        is_later = failed_at is not None and ready_since is not None and ready_since > failed_at
        if is_later and instance.is_steady(now):
            self.backoff.succeed()
            return [Say("agents come up again", {"agent": instance.name})]
        return []

    def _adopt(self, agents: list[SeenAgent], now: float) -> list[Effect]:
        for agent in agents:
            phase = Phase.DRAINING if self._is_drained_by_us(agent) else Phase.UP
            self.instances[agent.name] = instance = Instance(agent.name, phase, now)
            instance.saw(agent, now)
        return [Say("found an agent of ours", {"agent": agent.name, "id": agent.agent_id}) for agent in agents]

    def _is_drained_by_us(self, agent: SeenAgent) -> bool:
        return agent.is_draining and agent.condition is not Condition.OTHER and agent.name in self.drained

    def _note_version(self, version: int) -> list[Effect]:
        before, self._version = self._version, version
        if before in (None, version) or not self.backoff.failures:
            return []
        self.backoff.succeed()
        return [Say("the desired state has changed, so starting agents is tried at once", {"version": version})]

    # Decisions

    def _num_useful(self) -> int:
        return sum(one.is_useful for one in self.instances.values())

    def _more(self, lacking: int, seen: Seen, now: float) -> list[Effect]:
        effects: list[Effect] = []
        for instance in self.instances.values():
            if lacking and instance.phase is Phase.DRAINING and instance.agent and not instance.is_stuck:
                instance.enter(Phase.UP, now)
                instance.is_undraining = True
                effects.append(Undrain(instance.agent.agent_id))
                lacking -= 1
        # Those that are being stopped still have their places, and perhaps their machines.
        num_alive = sum(one.phase is not Phase.STOPPED and not one.is_set_aside for one in self.instances.values())
        num = min(lacking, self.policy.most - num_alive)
        if num <= 0:
            return effects
        self.held = self._hold(now)
        if self.held:
            return effects
        taken = {agent.name for agent in seen.agents} | self.instances.keys()
        for name in self._free_names(taken, 1 if self.backoff.failures else num):
            self.instances[name] = Instance(name, Phase.LAUNCHING, now)
            self.drained.discard(name)
            effects += [Say("starting", {"agent": name, "demand": seen.demand, "wanted": self.wanted}), Start(name)]
        return effects

    def _hold(self, now: float) -> str:
        useful = [one for one in self.instances.values() if one.is_useful]
        if any(one.is_stuck for one in useful) and not any(one.is_ready for one in useful):
            return self.backoff.trouble or "an agent is stuck"
        if not self.backoff.is_over(now):
            return self.backoff.trouble
        if self.backoff.failures and any(not one.is_ready and not one.is_stuck for one in useful):
            return f"{self.backoff.trouble}; whether the next one does better is to be seen"
        return ""

    def _free_names(self, taken: set[str], num: int) -> list[str]:
        numbers = (f"{self._prefix}-{number}" for number in range(1, len(taken) + num + 1))
        return [name for name in numbers if name not in taken][:num]

    def _fewer(self, now: float) -> list[Effect]:
        needed = self._window.most(now)
        if needed is None:
            return []
        useful = [one for one in self.instances.values() if one.is_useful]
        # Who is not in the pool yet cannot be drained, and must not outlive one that serves.
        num_coming = sum(one.phase is not Phase.UP for one in useful)
        surplus = len(useful) - needed - num_coming
        going = sorted((one for one in useful if _can_go(one)), key=_worth)[: max(surplus, 0)]
        effects: list[Effect] = []
        for instance in going:
            assert instance.agent is not None
            effects += self._drain(instance, instance.agent, now)
        return effects

    def _drain(self, instance: Instance, agent: SeenAgent, now: float) -> list[Effect]:
        instance.enter(Phase.DRAINING, now)
        instance.stop_at = None
        self.drained.add(instance.name)
        told = {"agent": instance.name, "demand": self.demand, "wanted": self.wanted}
        return [Say("draining", told), Drain(agent.agent_id)]

    def _stop(self, instance: Instance, now: float) -> list[Effect]:
        instance.enter(Phase.STOPPING, now)
        instance.num_stops, instance.stop_at = 0, None
        return [Stop(instance.name)]

    def _fail(self, why: str, now: float, is_final: bool = False) -> Say:
        delay = self.backoff.fail(why, now, is_final=is_final)
        return Say(
            "an agent has not come to serve", {"why": why, "failures": self.backoff.failures, "again_in_s": delay}, True
        )


def _is_at_work(agent: SeenAgent) -> bool:
    """An order to stop would hit requests: it came back after it was given up, or somebody has started it again."""
    takes_requests = not agent.is_draining and agent.condition is not Condition.OTHER
    return takes_requests or agent.requests > 0


_STANDING = (Phase.STARTING, Phase.UP, Phase.DRAINING)


def _is_moving(instance: Instance) -> bool:
    """Something is to be seen of it soon."""
    if instance.phase is Phase.UP:
        return not instance.is_ready or instance.is_undraining or instance.missing_since is not None
    return instance.phase in (Phase.STARTING, Phase.DRAINING, Phase.STOPPED)


def _can_go(instance: Instance) -> bool:
    if instance.phase is not Phase.UP or instance.missing_since is not None or instance.is_undraining:
        return False
    return instance.agent is not None and instance.agent.condition is not Condition.OTHER


def _worth(instance: Instance) -> tuple[bool, int, bool, int]:
    """The least first; of those that are alike the one with the highest number."""
    assert instance.agent is not None
    number = int(instance.name.rpartition("-")[2])
    return not instance.is_stuck, instance.agent.requests, instance.is_ready, -number
