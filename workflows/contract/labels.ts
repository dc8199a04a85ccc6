/** What a local activity returns for an input with a label; see workflows/own-results.ts. */
export interface LabelledResult {
  resultLabel: string;
  /** Missing if the activity returns nothing. */
  result?: unknown;
}

/** Whether a result, or the last detail of a failure, has a label. */
export function isLabelled(value: unknown): value is LabelledResult {
  return typeof value === 'object' && value !== null && typeof (value as { resultLabel?: unknown }).resultLabel === 'string';
}
