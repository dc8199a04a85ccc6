-- CreateTable
CREATE TABLE "alerts" (
    "cause" TEXT NOT NULL,
    "text" TEXT NOT NULL,
    "subject" TEXT,
    "occurrences" INTEGER NOT NULL DEFAULT 1,
    "raised_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "alerts_pkey" PRIMARY KEY ("cause")
);

-- CreateTable
CREATE TABLE "alert_deliveries" (
    "cause" TEXT NOT NULL,
    "channel" TEXT NOT NULL,
    "told" INTEGER NOT NULL DEFAULT 0,
    "attempts" INTEGER NOT NULL DEFAULT 0,
    "message_id" UUID,
    "not_before" TIMESTAMPTZ(3) NOT NULL,

    CONSTRAINT "alert_deliveries_pkey" PRIMARY KEY ("cause","channel")
);

-- AddForeignKey
ALTER TABLE "alert_deliveries" ADD CONSTRAINT "alert_deliveries_cause_fkey" FOREIGN KEY ("cause") REFERENCES "alerts"("cause") ON DELETE CASCADE ON UPDATE CASCADE;
