import { strictTemplateProblem } from './strict';

const messages = (...roles: string[]) => roles.map((role) => ({ role, content: role }));

test.each([[['user']], [['system', 'user']], [['system', 'user', 'assistant', 'user']]])(
  'when the roles are %j, then a strict template accepts them',
  (roles) => {
    expect(strictTemplateProblem(messages(...roles))).toBeUndefined();
  },
);

test.each([
  [[], 'begin with the user'],
  [['system'], 'begin with the user'],
  [['assistant', 'user'], 'begin with the user'],
  [['system', 'assistant', 'user'], 'begin with the user'],
  [['user', 'user'], 'alternate'],
  [['user', 'assistant', 'assistant', 'user'], 'alternate'],
  [['user', 'system', 'user'], 'system message'],
  [['system', 'system', 'user'], 'system message'],
  [['user', 'assistant'], 'last message'],
])('when the roles are %j, then it refuses them: %s', (roles, problem) => {
  expect(strictTemplateProblem(messages(...roles))).toContain(problem);
});

test('when a message has no content, then it is refused', () => {
  expect(strictTemplateProblem([{ role: 'user', content: ' \n' }])).toContain('no content');
});
