/** Fenced code, as Markdown and WhatsApp both write it. */

/** The marker of the fence that is open after `line`; undefined if none is. `open`: the one that is open before it. */
export function fenceAfter(line: string, open: string | undefined): string | undefined {
  const [, marker, rest = ''] = /^[ \t]*(`{3,8}|~{3,8})(?![`~])(.*)$/.exec(line) ?? [];
  if (marker === undefined) return open;
  // A line such as ```word``` is complete code.
  if (open === undefined) return rest.includes('`') ? undefined : marker;
  const isEnd = marker.startsWith(open) && rest.trim() === '';
  return isEnd ? undefined : open;
}

/** The longest marker that counts as a fence. */
export const MAX_FENCE_LENGTH = 8;
