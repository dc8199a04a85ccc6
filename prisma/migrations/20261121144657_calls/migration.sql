-- CreateEnum
CREATE TYPE "call_direction" AS ENUM ('outbound', 'inbound', 'web');

-- AlterEnum
ALTER TYPE "message_direction" ADD VALUE 'note';

-- CreateTable
CREATE TABLE "vapi_call_results" (
    "id" UUID NOT NULL,
    "workflow_id" TEXT NOT NULL,
    "provider_call_id" TEXT,
    "former_provider_call_ids" TEXT[] DEFAULT ARRAY[]::TEXT[],
    "direction" "call_direction" NOT NULL,
    "status" TEXT NOT NULL DEFAULT 'queued',
    "outcome" TEXT,
    "ended_reason" TEXT,
    "error" TEXT,
    "needs_attention" BOOLEAN NOT NULL DEFAULT false,
    "from_number" TEXT,
    "to_number" TEXT,
    "assistant_id" TEXT,
    "phone_number_id" TEXT,
    "variables" JSONB,
    "metadata" JSONB,
    "max_duration_seconds" INTEGER NOT NULL DEFAULT 600,
    "service_request_id" TEXT,
    "callback_url" TEXT,
    "request_hash" TEXT,
    "dialled_at" TIMESTAMPTZ(3),
    "dial_count" INTEGER NOT NULL DEFAULT 0,
    "started_at" TIMESTAMPTZ(3),
    "answered_at" TIMESTAMPTZ(3),
    "ended_at" TIMESTAMPTZ(3),
    "done_at" TIMESTAMPTZ(3),
    "duration_seconds" DOUBLE PRECISION,
    "cost" DOUBLE PRECISION,
    "transcript" TEXT,
    "messages" JSONB,
    "recording_url" TEXT,
    "summary" TEXT,
    "structured_data" JSONB,
    "success_evaluation" TEXT,
    "provider_context" JSONB,
    "raw_payload" JSONB,
    "conversation_id" UUID,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "vapi_call_results_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "vapi_call_events" (
    "id" UUID NOT NULL DEFAULT gen_random_uuid(),
    "provider_call_id" TEXT NOT NULL,
    "type" TEXT NOT NULL,
    "status" TEXT NOT NULL DEFAULT '',
    "occurred_at" TIMESTAMPTZ(3) NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "vapi_call_events_pkey" PRIMARY KEY ("id")
);

-- CreateIndex
CREATE INDEX "contacts_phone_idx" ON "contacts"("phone");

-- CreateIndex
CREATE UNIQUE INDEX "vapi_call_results_workflow_id_key" ON "vapi_call_results"("workflow_id");

-- CreateIndex
CREATE UNIQUE INDEX "vapi_call_results_provider_call_id_key" ON "vapi_call_results"("provider_call_id");

-- CreateIndex
CREATE INDEX "vapi_call_results_created_at_id_idx" ON "vapi_call_results"("created_at" DESC, "id" DESC);

-- CreateIndex
CREATE INDEX "vapi_call_results_to_number_created_at_idx" ON "vapi_call_results"("to_number", "created_at" DESC);

-- CreateIndex
CREATE INDEX "vapi_call_results_from_number_created_at_idx" ON "vapi_call_results"("from_number", "created_at" DESC);

-- CreateIndex
CREATE INDEX "vapi_call_results_service_request_id_idx" ON "vapi_call_results"("service_request_id");

-- CreateIndex
CREATE INDEX "vapi_call_results_conversation_id_idx" ON "vapi_call_results"("conversation_id");

-- CreateIndex
CREATE UNIQUE INDEX "vapi_call_events_provider_call_id_type_status_key" ON "vapi_call_events"("provider_call_id", "type", "status");

-- AddForeignKey
ALTER TABLE "vapi_call_results" ADD CONSTRAINT "vapi_call_results_conversation_id_fkey" FOREIGN KEY ("conversation_id") REFERENCES "conversations"("id") ON DELETE SET NULL ON UPDATE CASCADE;
