-- DropIndex
DROP INDEX "conversations_workspace_id_last_message_at_idx";

-- CreateIndex
CREATE INDEX "conversations_last_message_at_id_idx" ON "conversations"("last_message_at" DESC, "id" DESC);

-- CreateIndex
CREATE INDEX "conversations_needs_attention_last_message_at_id_idx" ON "conversations"("needs_attention", "last_message_at" DESC, "id" DESC);

-- CreateIndex
CREATE INDEX "conversations_mode_last_message_at_id_idx" ON "conversations"("mode", "last_message_at" DESC, "id" DESC);
