-- CreateTable
CREATE TABLE "repairs" (
    "workspace_id" UUID NOT NULL,
    "repaired_until" TIMESTAMPTZ(3) NOT NULL,
    "failing_since" TIMESTAMPTZ(3),
    "problem" TEXT,

    CONSTRAINT "repairs_pkey" PRIMARY KEY ("workspace_id")
);

-- AddForeignKey
ALTER TABLE "repairs" ADD CONSTRAINT "repairs_workspace_id_fkey" FOREIGN KEY ("workspace_id") REFERENCES "workspaces"("id") ON DELETE CASCADE ON UPDATE CASCADE;
