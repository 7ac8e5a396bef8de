#!/bin/bash
# Subject: two packages that check manifests of Kubernetes without a cluster: kubernetes-validate 1.37.0 (PyPI), and kubernetes-models
#   5.1.0 with @kubernetes-models/prometheus-operator 6.0.0 (npm); Python and Node as installed.
# Expected: a misspelt kind fails; so does a misspelt field, as with `kubectl apply`, which has the server look for unknown ones.
# Seen: kubernetes-validate --strict passes a `Deploymnet` with a warning and status 0, as it does everything that it has no schema of.
#   The validate() of kubernetes-models passes `readinesProbe`, and a PodMonitor with `intervall`: it looks at values, and
#   at names only where one is required. Its TypeScript types refuse both.
# How: the same few documents to each.
# Why: a check in CI that only runs these passes what it was put there for. A kind has to be known, and types have to be checked.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
changed() { echo "changed: $*"; exit 1; }

python3 -m venv python
python/bin/pip -q --disable-pip-version-check install kubernetes-validate==1.37.0
npm install --silent --no-audit --no-fund --cache "$folder/cache" kubernetes-models@5.1.0 typescript@7.0.2 \
    @kubernetes-models/prometheus-operator@6.0.0 >/dev/null

document() {
    cat <<YAML
apiVersion: apps/v1
kind: $1
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: web, $2: {httpGet: {path: /, port: 80}}}]}
YAML
}
status() {
    local status=0
    python/bin/kubernetes-validate --strict "$1" >said 2>&1 || status=$?
    echo "kubernetes-validate, $1: status $status: $(tail -n 1 said | cut -c -100)" >&2
    echo $status
}
document Deployment readinessProbe >right.yaml
document Deployment readinesProbe >field.yaml
document Deploymnet readinessProbe >kind.yaml
[ "$(status right.yaml)" = 0 ] || changed "the right one fails"
[ "$(status field.yaml)" = 1 ] || changed "the misspelt field passes"
[ "$(status kind.yaml)" = 0 ] || changed "the misspelt kind fails"

cat >models.mjs <<'JS'
import { Deployment } from "kubernetes-models/apps/v1/Deployment";
import { PodMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PodMonitor";
const passes = (what, it) => {
  let said = "passes";
  try { it.validate(); } catch (error) { said = "fails: " + error.message.slice(0, 70); }
  console.log(`validate(), ${what}: ${said}`);
  return said === "passes";
};
const metadata = { name: "web" };
const pod = (container) => ({ metadata, spec: { selector: {}, template: { spec: { containers: [container] } } } });
const monitor = (endpoint) => ({ metadata, spec: { selector: {}, podMetricsEndpoints: [endpoint] } });
const seen = [
  passes("readinesProbe", new Deployment(pod({ name: "web", readinesProbe: {} }))),
  passes("intervall", new PodMonitor(monitor({ port: "metrics", intervall: "15s" }))),
  !passes("interval: 15sec", new PodMonitor(monitor({ port: "metrics", interval: "15sec" }))),
];
if (!seen.every(Boolean)) { console.log("changed: validate()"); process.exit(1); }
JS
node models.mjs

cat >types.ts <<'TS'
import type { IPodMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PodMonitor";
export const it: IPodMonitor = {
  apiVersion: "monitoring.coreos.com/v1", kind: "PodMonitor",
  spec: { selector: {}, podMetricsEndpoints: [{ port: "metrics", intervall: "15s" }] },
};
TS
if node_modules/.bin/tsc --noEmit --strict --skipLibCheck --module nodenext --target es2022 types.ts >said 2>&1; then
    changed "the types take intervall"
fi
grep -q intervall said || changed "TypeScript fails for another reason: $(head -n 1 said)"
echo "TypeScript, intervall: $(grep -o 'error TS[0-9]*' said | head -n 1)"
echo ok
