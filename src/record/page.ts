/** One page of a list. */
export interface Page<T> {
  rows: T[];
  hasMore: boolean;
}

/** Makes a page from `limit + 1` rows, of which the last one only says that there are more. */
export function pageOf<T>(rows: readonly T[], limit: number): Page<T> {
  return { rows: rows.slice(0, limit), hasMore: rows.length > limit };
}
