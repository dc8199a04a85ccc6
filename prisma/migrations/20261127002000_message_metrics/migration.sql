-- CreateTable
CREATE TABLE "message_metrics" (
    "workspace_id" UUID NOT NULL,
    "day" DATE NOT NULL,
    "time_zone" TEXT NOT NULL,
    "received" INTEGER NOT NULL,
    "answered" INTEGER NOT NULL,
    "total_sent" INTEGER NOT NULL,
    "delivered" INTEGER NOT NULL,
    "read" INTEGER NOT NULL,
    "failed" INTEGER NOT NULL,
    "handed_over" INTEGER NOT NULL,
    "answer_p50_ms" INTEGER,
    "answer_p95_ms" INTEGER,
    "computed_at" TIMESTAMPTZ(3) NOT NULL,

    CONSTRAINT "message_metrics_pkey" PRIMARY KEY ("workspace_id","day")
);

-- CreateIndex
CREATE INDEX "messages_workspace_id_occurred_at_idx" ON "messages"("workspace_id", "occurred_at");

-- AddForeignKey
ALTER TABLE "message_metrics" ADD CONSTRAINT "message_metrics_workspace_id_fkey" FOREIGN KEY ("workspace_id") REFERENCES "workspaces"("id") ON DELETE CASCADE ON UPDATE CASCADE;
