-- AlterTable
ALTER TABLE "vapi_call_results" ADD COLUMN     "callback_failed_at" TIMESTAMPTZ(3),
ADD COLUMN     "customer_spoke" BOOLEAN,
ADD COLUMN     "improved_at" TIMESTAMPTZ(3),
ADD COLUMN     "workspace_id" UUID;

-- AlterTable
ALTER TABLE "workspaces" ADD COLUMN     "vapi_phone_number_id" TEXT;

-- Backfill: a call belongs to the workspace whose conversation heard of it, else to the first one.
UPDATE "vapi_call_results" r SET "workspace_id" = COALESCE(
  (SELECT c."workspace_id" FROM "conversations" c WHERE c."id" = r."conversation_id"),
  (SELECT w."id" FROM "workspaces" w ORDER BY w."created_at", w."id" LIMIT 1));

-- CreateIndex
CREATE INDEX "vapi_call_results_workspace_id_created_at_id_idx" ON "vapi_call_results"("workspace_id", "created_at" DESC, "id" DESC);

-- CreateIndex
CREATE UNIQUE INDEX "workspaces_vapi_phone_number_id_key" ON "workspaces"("vapi_phone_number_id");

-- AddForeignKey
ALTER TABLE "vapi_call_results" ADD CONSTRAINT "vapi_call_results_workspace_id_fkey" FOREIGN KEY ("workspace_id") REFERENCES "workspaces"("id") ON DELETE SET NULL ON UPDATE CASCADE;
