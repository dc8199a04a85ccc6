-- AlterTable
ALTER TABLE "vapi_call_results" ADD COLUMN     "dial_claim" UUID;
