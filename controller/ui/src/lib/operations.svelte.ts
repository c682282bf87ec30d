// Follows orders given to a server: requested, accepted, running, done. Nothing is called done before the server said so.

import { path } from '../core/api';
import type { Operation } from '../core/types';
import { operationEnded } from '../core/words';
import { api, app, asProblem, listen, toast } from './app.svelte';

const LOOK_MS = 2_500;
const FAILURES_MAX = 20;

/** What a request answers that a server will carry out later. */
export interface Begun {
  operation: Operation;
}

/** Calls `onChange` with each state until the operation has ended; returns what stops it. */
export function follow(id: string, onChange: (operation: Operation) => void): () => void {
  let stopped = false;
  let failures = 0;
  let busy = false;
  async function look() {
    if (stopped || busy) return;
    busy = true;
    try {
      const { body } = await api.get<Operation>(path(['operations', id]));
      failures = 0;
      if (!stopped) onChange(body);
      if (operationEnded(body.state)) stop();
    } catch (cause) {
      failures += 1;
      if (asProblem(cause).status === 404 || failures >= FAILURES_MAX) stop();
    }
    busy = false;
  }
  const timer = setInterval(() => void look(), LOOK_MS);
  const unlisten = listen((event) => {
    if (event.topic === 'operation.changed' || event.topic === 'reset') void look();
  });
  function stop() {
    stopped = true;
    clearInterval(timer);
    unlisten();
  }
  void look();
  return stop;
}

class Orders {
  /** Runs asked for on this page, by server and schedule. */
  states = $state<Record<string, Operation['state'] | 'sending'>>({});
}

export const orders = new Orders();

export function orderKey(server: string, schedule: string): string {
  return `${server}/${schedule}`;
}

/** Asks a server to run a schedule now, and tells how that goes. */
export async function runNow(server: { id: string; name: string; online: boolean }, schedule: string): Promise<void> {
  const key = orderKey(server.id, schedule);
  orders.states[key] = 'sending';
  try {
    const { body } = await api.post<Begun>(
      path(['servers', server.id, 'schedules', schedule, 'run']),
    );
    orders.states[key] = 'requested';
    if (!server.online) toast(`${server.name} is offline. It runs ${schedule} when it is back, unless the request expires first.`);
    follow(body.operation.id, (operation) => {
      orders.states[key] = operation.state;
      if (operation.state === 'failed') toast(`${schedule} on ${server.name}: ${operation.detail ?? 'the run failed'}`, 'failed');
      if (operation.state === 'expired') toast(`${server.name} did not answer in time, so ${schedule} was not run.`, 'failed');
      if (operation.state === 'done') toast(`${schedule} on ${server.name} has ended: ${operation.detail ?? 'see History.'}`);
      if (operationEnded(operation.state)) delete orders.states[key];
    });
  } catch (cause) {
    delete orders.states[key];
    toast(`${schedule} could not be started: ${asProblem(cause).message}`, 'failed');
  }
}

/** How a run of this schedule stands now, whoever asked for it; nothing when there is none. */
export function runPhase(server: string, schedule: string): 'requested' | 'accepted' | 'running' | undefined {
  const task = app.tasks.find(
    (t) => t.kind === 'run' && t.endedAt === undefined && t.server.id === server && t.schedule === schedule,
  );
  if (task === undefined) return undefined;
  return task.phase === 'requested' || task.phase === 'accepted' ? task.phase : 'running';
}
