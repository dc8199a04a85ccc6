-- CreateIndex
CREATE INDEX "parked_messages_released_at_created_at_idx" ON "parked_messages"("released_at", "created_at");
