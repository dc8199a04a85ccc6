/** One page of a list. */
export interface Page<T> {
  rows: T[];
  hasMore: boolean;
}

/** The page, from one row more than it may have. */
export function pageOf<T>(rows: readonly T[], limit: number): Page<T> {
  return { rows: rows.slice(0, limit), hasMore: rows.length > limit };
}
