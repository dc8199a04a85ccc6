/** What strict chat templates refuse, such as those of Gemma and Mistral on vLLM. */

/** Why a strict template refuses these messages; undefined if it accepts them. */
export function strictTemplateProblem(messages: readonly { role: string; content: string }[]): string | undefined {
  const talk = messages[0]?.role === 'system' ? messages.slice(1) : messages;
  if (messages.some(({ content }) => content.trim() === '')) return 'a message has no content';
  if (talk.some(({ role }) => role === 'system')) return 'a system message must be the first message';
  if (talk[0]?.role !== 'user') return 'the conversation must begin with the user';
  if (talk.some(({ role }, index) => role === talk[index - 1]?.role)) return 'the roles must alternate user/assistant';
  if (talk.at(-1)?.role !== 'user') return 'the last message must be the user’s';
  return undefined;
}
