import { Context } from '@temporalio/activity';

/** The id of the workflow that runs this activity. */
export function ownWorkflowId(): string {
  const id = Context.current().info.workflowExecution?.workflowId;
  if (id === undefined) throw new Error('this activity is for workflows only');
  return id;
}
