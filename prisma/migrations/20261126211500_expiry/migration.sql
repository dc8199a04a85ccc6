-- CreateIndex
CREATE INDEX "message_status_events_created_at_idx" ON "message_status_events"("created_at");

-- CreateIndex
CREATE INDEX "parked_messages_created_at_idx" ON "parked_messages"("created_at");

-- CreateIndex
CREATE INDEX "vapi_call_events_created_at_idx" ON "vapi_call_events"("created_at");
