// The public suite's own command finds no tests under vitest 4, which looks for none in node_modules.
import { runConformanceTests } from "@durable-streams/server-conformance-tests";

runConformanceTests({ baseUrl: process.env.CONFORMANCE_TEST_URL });
