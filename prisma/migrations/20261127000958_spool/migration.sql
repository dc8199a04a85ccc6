-- CreateTable
CREATE TABLE "spooled_requests" (
    "position" BIGSERIAL NOT NULL,
    "workflow_id" TEXT NOT NULL,
    "request" TEXT NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "relayed_at" TIMESTAMPTZ(3),

    CONSTRAINT "spooled_requests_pkey" PRIMARY KEY ("position")
);

-- CreateIndex
CREATE INDEX "spooled_requests_relayed_at_position_idx" ON "spooled_requests"("relayed_at", "position");

-- CreateIndex
CREATE INDEX "spooled_requests_workflow_id_relayed_at_idx" ON "spooled_requests"("workflow_id", "relayed_at");
