// The shapes of the controller's JSON API under the names that the views use; `npm run schema` makes them anew.

import type { components } from './schema';

type Schemas = components['schemas'];

export type Scope = Schemas['ScopeWord'];
export type RunState = Schemas['RunStateWord'];
export type Trigger = Schemas['TriggerWord'];
export type OperationState = Schemas['OperationState'];

export interface Page<T> {
  items: T[];
  next_cursor?: string | null;
}

export type Session = Schemas['SessionView'];
export type Server = Schemas['ServerItem'];
export type ServerRef = Schemas['ServerRef'];
export type Generation = Schemas['GenerationState'];
export type JoinCode = Schemas['JoinCodeView'];
export type Keep = Schemas['Keep'];
export type Schedule = Schemas['ScheduleItem'];
/** What is sent: every field, so that nothing is reset by being left out. */
export type ScheduleInput = Required<Schemas['ScheduleInput']>;
export type Copy = Schemas['CopyItem'];
export type RunCounts = Schemas['CountsItem'];
/** A row of history; the log comes only with one run asked for by its id. */
export type Run = Schemas['RunItem'] & { log?: string[] };
export type Task = Schemas['TaskItem'];
export type Snapshot = Schemas['SnapshotView'];
export type SnapshotList = Schemas['SnapshotList'];
export type RestoreRequest = Schemas['RestoreInput'];
export type Operation = Schemas['OperationView'];
