import { withoutThoughts } from './thoughts';

const ANSWER = 'We open at nine.';

test.each([
  ['between tags', `<think>\nThe customer sounds annoyed.\n</think>\n\n${ANSWER}`],
  ['between tags, on one line', `<think>Annoyed.</think>${ANSWER}`],
  ['between other tags', `<thinking>Annoyed.</thinking> ${ANSWER}`],
  ['between tags with a prefix', `<seed:think>Annoyed.</seed:think>${ANSWER}`],
  ['between tags with an attribute', `<think type="deep">Annoyed.</think>${ANSWER}`],
  ['between tags with spaces in them', `<think>\nAnnoyed.\n</ think>\n${ANSWER}`],
  ['between OpenThinker’s tags', `<|begin_of_thought|>Annoyed.<|end_of_thought|>${ANSWER}`],
  ['between Cohere’s tags', `<|START_THINKING|>Annoyed.<|END_THINKING|><|START_RESPONSE|>${ANSWER}<|END_RESPONSE|>`],
  ['between Gemma’s tags', `<|channel>thought\nAnnoyed.<channel|>${ANSWER}`],
  ['between tags named reasoning_content', `<reasoning_content>Annoyed.</reasoning_content>${ANSWER}`],
  ['between tags named scratchpad', `<scratchpad> annoyed </scratchpad> ${ANSWER}`],
  ['that begin with a quote', `<think>"Where is my order?" is the question; I must stall </think> ${ANSWER}`],
  ['that begin with a curly quote', `<think>“¿Dónde está?” pregunta el cliente </think> ${ANSWER}`],
  ['that begin with a verb', `<think> is angry, so I must stall </think> ${ANSWER}`],
  ['that end in a quote', `<think>They say "hours"</think>${ANSWER}`],
  ['with a pair of tags in quotes', `<think>Do they mean "<think>" or "</think>"?</think>${ANSWER}`],
  ['with a fence that never ends', `<think>Draft:\n\`\`\`\nHello\n</think>\n${ANSWER}`],
  ['with a fence that never ends, and an end tag alone', `Draft:\n\`\`\`\nHello\n</think>\n\n${ANSWER}`],
  ['with a start tag as a word, and an end tag alone', `They ask about <think> tags.\n</think>\n${ANSWER}`],
  ['with an end tag alone, glued to the answer', `Keep it short </think>${ANSWER}`],
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
  ['Hello! <think> I should not mention the 40% margin </think> How can I help?', 'Hello! How can I help?'],
  ['Sure! <think> The customer wants a refund.\nPolicy says no, hide it </think> Hello!', 'Sure! Hello!'],
  ['Hi.\n\n- <think> secret plan </think> ok', 'Hi.\n\n- ok'],
  ['Hi <think>👍 secret plan </think> ok', 'Hi ok'],
  ['Hi <think> secret plan </think> ok', 'Hi ok'],
  ['Hi <thinking>hidden</thinking> there', 'Hi there'],
  ['Hello!\n<think>\nsecret\n</think>\nHow are you?', 'Hello!\n\nHow are you?'],
  ['好的。<think>客户要退款</think>您好', '好的。您好'],
  ['It writes <think> before it answers.\n\n<think>secret</think>Ok?', 'It writes <think> before it answers.\n\nOk?'],
  ['Here it is:\n<think> secret </think>\nWe open at nine.', 'Here it is:\n\nWe open at nine.'],
  ['The user greets me.\n</think>"Hola" means hello.', '"Hola" means hello.'],
  ['"<think>secret plan</think>Hello"', '"Hello"'],
  ['Hi. <think> secret plan', 'Hi.'],
  ['Hi <think>secret', 'Hi'],
  ['Hi!\n- <think> is he angry? I should', 'Hi!\n-'],
])('when thoughts stand within a text, then the rest of it stays: %s', (text, shown) => {
  expect(withoutThoughts(text)).toBe(shown);
});

test.each([
  ['a channel marker', `<|channel|>final<|message|>${ANSWER}`],
  ['a channel marker without a message marker', `<|channel|>final ${ANSWER}`],
  ['a message marker', `<|message|>${ANSWER}`],
  ['a role', `<|im_start|>assistant\n${ANSWER}<|im_end|>`],
  ['a header', `<|start_header_id|>assistant<|end_header_id|>\n\n${ANSWER}<|eot_id|>`],
  ['an end of turn', `${ANSWER} <end_of_turn>\n`],
  ['an end of sentence', `${ANSWER}</s>`],
])('when a text has %s, then the customer does not see it', (_what, text) => {
  expect(withoutThoughts(text)).toBe(ANSWER);
});

test.each([
  ['thoughts that were cut', '<think>I should look at the opening hours and'],
  ['thoughts that were cut, and begin with a quote', '<think>"Where is my order?" the customer asks. I should…'],
  ['thoughts that were cut, and begin with dots', '<think>...hmm, the customer is angry. I should'],
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
  '<think> is a tag that some models write before they answer.',
  '<think> is a tag. You must close it with </think>.',
  '<think> and </think> are tags.',
  'Write it like this:\n<think> your ideas </think>\nand send it.',
  'Tags that models use:\n- <think>\n- </think>\nBoth are hidden.',
  'Models open with a tag. </think> closes it. Anything else?',
  'Models (<think>) have a tag (</think>) for it.',
  "They write “<think>” first, «<think>» sometimes, and '</think>' last.",
  'Write `first <think>, then </think>` in the field.',
  'First:\n```\n<think>\n```\nThen:\n```\n</think>\n```\nDone.',
  'Press [THINK], then wait.',
])('when a sentence only mentions a tag, then it stays: %s', (text) => {
  expect(withoutThoughts(text)).toBe(text);
});

const LONG = 100_000;

test.each([
  ['empty thoughts', '<think></think>'.repeat(LONG / 15)],
  ['start tags', '<think>'.repeat(LONG / 7)],
  ['start tags in a sentence', 'a <think> b '.repeat(LONG / 12)],
  ['end tags', '</think>'.repeat(LONG / 8)],
  ['end tags in a sentence', 'x </think> y '.repeat(LONG / 13)],
  ['spaces and end tags', `a.${' '.repeat(LONG)}x</think>${'</think> '.repeat(LONG / 9)}`],
  ['tags in quotes', '"<think>" '.repeat(LONG / 10)],
  ['fences', '```\n<think>\n'.repeat(LONG / 12)],
  ['backticks', '`'.repeat(LONG)],
  ['backticks and letters', '`a``'.repeat(LONG / 4)],
  ['last tokens', `a${'<|end|>'.repeat(LONG / 7)}`],
  ['spaces before a last token', `a${' '.repeat(LONG)}b ${'<|end|>'}`],
  ['spaces at the end', `a${' '.repeat(LONG)}<|end|>b`],
])('when 100 kB of %s come, then they take less than 200 ms', (_what, text) => {
  const startedAtMs = performance.now();
  withoutThoughts(text);
  expect(performance.now() - startedAtMs).toBeLessThan(200);
});
