// The shapes of the controller's JSON API, as the views use them. See docs of `/api/v1`.

export type Scope = 'full' | 'web' | 'db';
export type RunState = 'running' | 'ok' | 'partial' | 'failed' | 'missed' | 'skipped' | 'cancelled';
export type Trigger = 'timer' | 'catch_up' | 'request';
export type OperationState = 'requested' | 'accepted' | 'running' | 'done' | 'failed' | 'expired';

export interface Page<T> {
  items: T[];
  next_cursor?: string | null;
}

export interface User {
  id: string;
  name: string;
  role: string;
}

export interface Session {
  user: User;
  version: string;
}

export interface Generation {
  saved: number;
  delivered: number;
  applied: number;
  error?: string | null;
}

export interface Drift {
  unit: string;
  kind: string;
  detail: string;
  noticed_at: string;
}

export interface DestinationRef {
  name: string;
  kind: string;
  place: string;
}

export interface Server {
  id: string;
  name: string;
  agent_id?: string | null;
  fingerprint?: string | null;
  online: boolean;
  last_seen_at?: string | null;
  version?: string | null;
  os?: string | null;
  generation: Generation;
  drift: Drift[];
  destinations: DestinationRef[];
  accounts: string[];
  schedule_count: number;
}

export interface JoinCode {
  code: string;
  command: string;
  expires_at: string;
}

export interface Keep {
  last?: number | null;
  hourly?: number | null;
  daily?: number | null;
  weekly?: number | null;
  monthly?: number | null;
  yearly?: number | null;
  within?: string | null;
  max?: number | null;
}

export interface ScheduleInput {
  name: string;
  enabled: boolean;
  scope: Scope;
  accounts: 'all' | string[];
  when: string;
  destinations: string[];
  keep: Keep;
  compression?: number | 'auto' | null;
  exclude: string[];
}

export interface LastRun {
  id: string;
  state: RunState;
  started_at: string;
  finished_at?: string | null;
  summary?: string;
}

export interface Schedule extends ScheduleInput {
  origin: 'controller' | 'server';
  toml: string;
  next_run_at?: string | null;
  last_run?: LastRun | null;
}

export interface Copy {
  destination: string;
  state: 'stored' | 'failed';
  snapshot?: string | null;
  stored_bytes: number;
  error?: string | null;
}

export interface RunCounts {
  entries: number;
  unchanged: number;
  databases: number;
  failed: number;
  total_bytes: number;
  read_bytes: number;
}

export interface ServerRef {
  id: string;
  name: string;
}

export interface Run {
  id: string;
  server: ServerRef;
  schedule: string;
  scope: Scope;
  trigger: Trigger;
  due_at?: string | null;
  started_at: string;
  finished_at?: string | null;
  state: RunState;
  summary: string;
  counts: RunCounts;
  copies: Copy[];
  log?: string[];
}

export interface Task {
  id: string;
  kind: 'run' | 'restore';
  server: ServerRef;
  schedule: string;
  phase: string;
  entries: number;
  bytes: number;
  bytes_expected?: number | null;
  started_at: string;
}

export interface Snapshot {
  id: string;
  taken_at: string;
  destinations: string[];
  entries?: number | null;
  total_bytes?: number | null;
}

export type RestoreTarget = 'in_place' | { directory: string };

export interface RestoreRequest {
  schedule: string;
  snapshot: string;
  destination: string;
  target: RestoreTarget;
  confirm: string;
}

export interface Operation {
  id: string;
  kind?: string;
  server_id?: string;
  state: OperationState;
  error?: string | null;
  result?: unknown;
  created_at?: string;
}
