import { conversationWorkflowId, readConversationWorkflowId, UNASSIGNED_NUMBER } from './conversation';

test.each(['100000000000001', UNASSIGNED_NUMBER, 'an-id_with.dashes-1'])(
  'when a workflow id was made for the number id %s, then it can be read back',
  (phoneNumberId) => {
    const contactKey = '0123456789abcdef01234567';
    expect(readConversationWorkflowId(conversationWorkflowId(phoneNumberId, contactKey))).toEqual({ phoneNumberId, contactKey });
  },
);

test.each(['call-0123', 'conversation-1', 'conversation-1-not hexadecimal', ''])(
  'when %p is no such id, then that is an error',
  (workflowId) => {
    expect(() => readConversationWorkflowId(workflowId)).toThrow('is not the id');
  },
);
