import { withoutThoughts } from './thoughts';

const ANSWER = 'We open at nine.';

test.each([
  ['between tags', `<think>\nThe customer sounds annoyed.\n</think>\n\n${ANSWER}`],
  ['between tags, on one line', `<think>Annoyed.</think>${ANSWER}`],
  ['between other tags', `<thinking>Annoyed.</thinking> ${ANSWER}`],
  ['between tags with a prefix', `<seed:think>Annoyed.</seed:think>${ANSWER}`],
  ['between Mistral’s tags', `[THINK]Annoyed.[/THINK]${ANSWER}`],
  ['between Kimi’s tags', `◁think▷Annoyed.◁/think▷${ANSWER}`],
  ['in capitals', `<THINK>Annoyed.</THINK>${ANSWER}`],
  ['twice', `<think>One.</think>\n<think>Two.</think>\n${ANSWER}`],
  ['within thoughts', `<think>One <think>two</think> three.</think>\n${ANSWER}`],
  ['that are empty', `<think>\n\n</think>\n\n${ANSWER}`],
  ['that quote the end tag', `<think>Do they mean "</think>"?\nYes.\n</think>\n${ANSWER}`],
  ['with an end tag alone', `The customer asks for hours. Keep it short.\n</think>\n\n${ANSWER}`],
  ['with an end tag alone, after a sentence', `Keep it short. </think> ${ANSWER}`],
  ['with an end tag alone, glued', `Keep it short</think>${ANSWER}`],
  ['with an end tag alone, before an empty line', `they want the hours </think>\n\n${ANSWER}`],
  ['with an end tag at the start', `</think>\n\n${ANSWER}`],
  ['after the answer', `${ANSWER}\n<think>Was that right?</think>`],
  ['after the answer, cut', `${ANSWER}\n<think>Was that`],
  ['in another channel', `<|channel|>analysis<|message|>Short.<|end|><|start|>assistant<|channel|>final<|message|>${ANSWER}`],
  ['in another channel, with the last token', `<|channel|>analysis<|message|>Short.<|end|><|channel|>final<|message|>${ANSWER}<|return|>`],
  ['in another channel without end', `<|channel|>analysis<|message|>Short.<|channel|>final<|message|>${ANSWER}`],
  ['in another channel without markers', `analysisThey want the hours.assistantfinal${ANSWER}`],
])('when a text has thoughts %s, then the customer reads the answer alone', (_where, text) => {
  expect(withoutThoughts(text)).toBe(ANSWER);
});

test.each([
  ['a channel marker', `<|channel|>final<|message|>${ANSWER}`],
  ['a channel marker without a message marker', `<|channel|>final ${ANSWER}`],
  ['a message marker', `<|message|>${ANSWER}`],
  ['a role', `<|im_start|>assistant\n${ANSWER}<|im_end|>`],
  ['a header', `<|start_header_id|>assistant<|end_header_id|>\n\n${ANSWER}<|eot_id|>`],
  ['an end of turn', `${ANSWER} <end_of_turn>\n`],
  ['an end of sentence', `${ANSWER}</s>`],
])('when a text has %s, then the customer does not read it', (_what, text) => {
  expect(withoutThoughts(text)).toBe(ANSWER);
});

test.each([
  ['thoughts that were cut', '<think>I should look at the opening hours and'],
  ['thoughts alone', '<think>Hm.</think>'],
  ['thoughts with an end tag alone', 'They want the hours.\n</think>\n'],
  ['another channel alone', '<|channel|>analysis<|message|>Short answer wanted.'],
  ['a channel that was cut before its text', '<|channel|>final'],
  ['control tokens alone', '<|im_end|>'],
])('when a text is %s, then nothing is left', (_what, text) => {
  expect(withoutThoughts(text)).toBe('');
});

test.each([
  'Some models write <think> before they answer.',
  'The tag </think> ends the thoughts.',
  'You must close it with </think>.',
  'You must close it with </think>',
  'Wrap your notes in <think> and </think> tags.',
  'Wrap them in <think>…</think>, please.',
  'Use `<think>notes</think>` for it.',
  'Write "<think>like this</think>" in the field.',
  'Like this:\n```\n<think>\nnotes\n</think>\n```\nThat is all.',
  'DeepSeek writes <think> before it begins and </think> when it is done.',
  'The marker <|channel|> separates channels.',
  'It ends with <|im_end|>',
  'An analysis of the final price takes a day.',
  'I think <3 is a heart.',
  'Press [THINK], then wait.',
])('when a sentence only mentions a tag, then it stays: %s', (text) => {
  expect(withoutThoughts(text)).toBe(text);
});
