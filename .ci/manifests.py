"""Checks what is under config/kubernetes, and config/nomad.hcl: `manifests.py TOOLS` (see manifests, which installs them).

It prints what is wrong and fails, or what it has checked. It needs no cluster, so it knows nothing of admission: quotas, policies,
whether an image exists.
"""

import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import hcl2
import kubernetes_validate
import yaml

ROOT = pathlib.Path("config/kubernetes")
NOMAD = pathlib.Path("config/nomad.hcl")
TOOLS = pathlib.Path(sys.argv[1])
KUBERNETES = "1.37"

# Where kubernetes-models has the kinds of operators.
OPERATORS = {
    ("keda.sh/v1alpha1", "ScaledObject"): "@kubernetes-models/keda/keda.sh/v1alpha1",
    ("monitoring.coreos.com/v1", "PodMonitor"): "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1",
}

# What KEDA's scalers take, which its schema leaves open ("metadata" is a map of strings): from keda.sh/docs, of 2.21.
SCALERS = {
    "cpu": {"type", "value", "containerName"},
    "prometheus": {
        "serverAddress", "query", "threshold", "activationThreshold", "namespace", "customHeaders", "ignoreNullValues",
        "queryParameters", "unsafeSsl", "timeout", "authModes",
    },
}  # fmt: skip
METRIC_TYPES = {"cpu": {"Utilization", "AverageValue"}, "prometheus": {"AverageValue", "Value"}}
# What each must have.
NEEDED_OF_SCALERS = {"cpu": {"value"}, "prometheus": {"serverAddress", "query", "threshold"}}

# The attributes and blocks of a job, as far as it has them here: there is no schema of it in a package. From the `hcl` tags in
# Nomad's `api` module, and for `docker` from drivers/docker/config.go, both of August 2026. A name in capitals is a block with
# a label.
STRING, NUMBER, BOOL, STRINGS, DURATION = "string", "number", "boolean", "list of strings", "duration"
MOUNT = {
    "type": STRING, "target": STRING, "source": STRING, "readonly": BOOL, "tmpfs_options": {"size": NUMBER, "mode": NUMBER},
}  # fmt: skip
DOCKER = {
    "image": STRING, "args": STRINGS, "command": STRING, "entrypoint": STRINGS, "ports": STRINGS, "cap_add": STRINGS,
    "cap_drop": STRINGS, "init": BOOL, "mount": MOUNT, "privileged": BOOL, "readonly_rootfs": BOOL, "security_opt": STRINGS,
    "work_dir": STRING, "pids_limit": NUMBER,
}  # fmt: skip
CHECK = {
    "name": STRING, "type": STRING, "path": STRING, "port": STRING, "method": STRING, "interval": DURATION, "timeout": DURATION,
    "address_mode": STRING, "success_before_passing": NUMBER, "failures_before_critical": NUMBER,
    "check_restart": {"limit": NUMBER, "grace": DURATION, "ignore_warnings": BOOL},
}  # fmt: skip
SERVICE = {
    "name": STRING, "provider": STRING, "port": STRING, "tags": STRINGS, "canary_tags": STRINGS, "address_mode": STRING,
    "check": CHECK,
}  # fmt: skip
UPDATE = {
    "canary": NUMBER, "max_parallel": NUMBER, "auto_promote": BOOL, "auto_revert": BOOL, "health_check": STRING,
    "min_healthy_time": DURATION, "healthy_deadline": DURATION, "progress_deadline": DURATION, "stagger": DURATION,
}  # fmt: skip
TASK = {
    "driver": STRING, "user": STRING, "config": DOCKER, "kill_signal": STRING, "kill_timeout": DURATION,
    "shutdown_delay": DURATION, "resources": {"cpu": NUMBER, "cores": NUMBER, "memory": NUMBER, "memory_max": NUMBER},
}  # fmt: skip
GROUP = {
    "count": NUMBER, "shutdown_delay": DURATION, "spread": {"attribute": STRING, "weight": NUMBER}, "update": UPDATE,
    "network": {"mode": STRING, "PORT": {"static": NUMBER, "to": NUMBER, "host_network": STRING}}, "service": SERVICE,
    "TASK": TASK,
}  # fmt: skip
JOB = {"JOB": {"type": STRING, "datacenters": STRINGS, "namespace": STRING, "priority": NUMBER, "GROUP": GROUP}}

# Go's time.ParseDuration.
GO_DURATION = re.compile(r"(\d+(\.\d+)?(ms|s|m|h))+")
# --drain-timeout and --kill-timeout, where nothing else is said (docs/settings.md).
DRAIN, KILL = "6s", "1.6s"

wrong = []


def expect(holds, what):
    if not holds:
        wrong.append(what)


# Kubernetes.


def built(folder):
    answer = subprocess.run([TOOLS / "python/bin/kubectl", "kustomize", folder], capture_output=True, text=True)
    expect(answer.returncode == 0, f"{folder}: {answer.stderr.strip()}")
    return list(yaml.safe_load_all(answer.stdout)) if answer.returncode == 0 else []


def check_files():
    """Every file is in use: what no kustomization names is never built, and so never checked."""
    named = set()
    for path in ROOT.rglob("kustomization.yaml"):
        kustomization = yaml.safe_load(path.read_text())
        for name in [*kustomization.get("resources", []), *kustomization.get("components", [])]:
            named.add((path.parent / name).resolve())
    for path in ROOT.rglob("*.yaml"):
        if path.name == "kustomization.yaml":
            folder = path.parent
            expect(folder.parent.name != "components" or folder.resolve() in named, f"{folder}: no overlay has it")
        elif path != ADAPTER:
            expect(path.resolve() in named, f"{path}: no kustomization has it")


def check_kind(where, document):
    """Against the schema of its kind; returns whether an operator defines it."""
    kind = (document["apiVersion"], document["kind"])
    if kind in OPERATORS:
        return True
    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        wrong.append(f"{where}: {'.'.join(map(str, error.path))}: {error.message}")
    except kubernetes_validate.SchemaNotFoundError:
        # Its command line only warns of that.
        wrong.append(f"{where}: there is no schema of it")
    return False


def check_operators(documents):
    """By TypeScript, which finds what is unknown or of another type, and by the validators, which know patterns and enumerations."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "node_modules").symlink_to((TOOLS / "npm/node_modules").resolve())
        (folder / "package.json").write_text('{"type": "module"}')
        programs = []
        for number, (where, document) in enumerate(documents):
            kind, package = document["kind"], OPERATORS[document["apiVersion"], document["kind"]]
            literal = json.dumps(document, indent=1)
            types = f'import type {{ I{kind} }} from "{package}/{kind}";\nexport const it: I{kind} = {literal};\n'
            (folder / f"it{number}.ts").write_text(types)
            programs.append(
                f'{{ const {{ {kind} }} = await import("{package}/{kind}"); '
                f"try {{ new {kind}({literal}).validate(); }} "
                f"catch (error) {{ console.log({json.dumps(where)} + ': ' + error.message); process.exitCode = 1; }} }}"
            )
        compiler = TOOLS.resolve() / "npm/node_modules/.bin/tsc"
        options = ["--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--target", "es2022"]
        files = sorted(path.name for path in folder.glob("*.ts"))
        answer = subprocess.run([compiler, *options, *files], cwd=folder, capture_output=True, text=True)
        expect(answer.returncode == 0, f"{[where for where, _ in documents]}: {answer.stdout.strip()}{answer.stderr.strip()}")
        (folder / "validate.js").write_text("\n".join(programs))
        answer = subprocess.run(["node", "validate.js"], cwd=folder, capture_output=True, text=True)
        expect(answer.returncode == 0, answer.stdout.strip() + answer.stderr.strip())


def matches(selector, labels):
    return selector.get("matchLabels", selector).items() <= labels.items()


def argument(args, name, default=None):
    return next((arg.removeprefix(f"{name}=") for arg in args if arg.startswith(f"{name}=")), default)


def seconds(text):
    return float(text.removesuffix("s"))


def check_together(where, documents):
    """That they mean each other: ports, labels, names, times."""
    by_kind = {}
    for document in documents:
        by_kind.setdefault(document["kind"], []).append(document)
    (deployment,) = by_kind["Deployment"]
    spec = deployment["spec"]
    pod = spec["template"]
    (container,) = pod["spec"]["containers"]
    labels, ports = pod["metadata"]["labels"], {port["name"]: port["containerPort"] for port in container["ports"]}

    expect(matches(spec["selector"], labels), f"{where}: the deployment does not select its pods")
    for constraint in pod["spec"]["topologySpreadConstraints"]:
        expect(matches(constraint["labelSelector"], labels), f"{where}: a spread is one of other pods")
    for kind in ["Service", "PodDisruptionBudget", "PodMonitor"]:
        for document in by_kind.get(kind, []):
            expect(matches(document["spec"]["selector"], labels), f"{where}: {kind} selects no pod")
    for service in by_kind["Service"]:
        for port in service["spec"]["ports"]:
            expect(port["targetPort"] in ports, f"{where}: the service leads to a port {port['targetPort']}")
    for monitor in by_kind.get("PodMonitor", []):
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            expect(endpoint["port"] in ports, f"{where}: PodMonitor has a port {endpoint['port']}")
        expect(set(monitor["spec"]["podTargetLabels"]) <= labels.keys(), f"{where}: PodMonitor has a label that pods do not")
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"]:
        expect(container[probe]["httpGet"]["port"] == "metrics", f"{where}: {probe} does not ask /metrics' port")

    args = container["args"]
    port = argument(args, "--metrics").rpartition(":")[2]
    expect(port == str(ports["metrics"]), f"{where}: --metrics has the port {port}")
    annotated = pod["metadata"].get("annotations", {}).get("prometheus.io/port")
    expect(annotated in (None, port), f"{where}: the annotation has the port {annotated}")
    expect((annotated is None) == ("PodMonitor" in by_kind), f"{where}: pods are scraped by annotation or PodMonitor, and by one")

    end = seconds(argument(args, "--drain-timeout", DRAIN)) + seconds(argument(args, "--kill-timeout", KILL))
    grace = pod["spec"]["terminationGracePeriodSeconds"]
    expect(seconds(argument(args, "--stop-delay", "0s")) > 0, f"{where}: nobody accepts clients while endpoints follow")
    expect(grace > end, f"{where}: {grace} s are too short to end: {end} s")

    scalers = [*by_kind.get("HorizontalPodAutoscaler", []), *by_kind.get("ScaledObject", [])]
    expect(len(scalers) <= 1, f"{where}: two set the number of replicas")
    for scaler in scalers:
        target = scaler["spec"]["scaleTargetRef"]["name"]
        expect(target == deployment["metadata"]["name"], f"{where}: {scaler['kind']} scales {target}")
    expect(bool(scalers) != ("replicas" in spec), f"{where}: replicas are set by one, deployment or scaler")


def check_scalers(where, scaled):
    """Returns the queries."""
    for trigger in scaled["spec"]["triggers"]:
        kind, names = trigger["type"], trigger["metadata"].keys()
        expect(trigger["metricType"] in METRIC_TYPES[kind], f"{where}: {kind} has no metricType {trigger['metricType']}")
        unknown, lacking = names - SCALERS[kind], NEEDED_OF_SCALERS[kind] - names
        expect(not unknown and not lacking, f"{where}: {kind}: unknown {sorted(unknown)}, lacking {sorted(lacking)}")
        if "query" in names:
            yield trigger["metadata"]["query"]


ADAPTER = ROOT / "components/hpa/prometheus-adapter.yaml"


def check_adapter(autoscalers):
    """prometheus-adapter's rules give what autoscalers ask for; returns the queries."""
    keys = {"seriesQuery", "seriesFilters", "resources", "name", "metricsQuery"}
    rules = yaml.safe_load(ADAPTER.read_text())["rules"]
    for rule in rules:
        expect(rule.keys() <= keys, f"{ADAPTER}: unknown {sorted(rule.keys() - keys)}")
        query = rule["metricsQuery"]
        query = query.replace("<<.LabelMatchers>>", 'namespace="default"').replace("<<.GroupBy>>", "pod")
        expect("<<" not in query, f"{ADAPTER}: a template that it does not know: {query}")
        yield query
    given = {rule["name"]["as"] for rule in rules}
    asked = {m["pods"]["metric"]["name"] for a in autoscalers for m in a["spec"]["metrics"] if m["type"] == "Pods"}
    expect(given == asked, f"{ADAPTER} gives {sorted(given)}; autoscalers ask for {sorted(asked)}")


def check_queries(queries):
    """Each is the share of connections that have waited for more than 100 ms: promtool evaluates them."""

    def case(quick, everybody, share):
        labels = 'namespace="default", app="web", pod="web-1"'
        name = "clusterd_queue_wait_seconds_bucket"
        series = [
            {"series": f'{name}{{{labels}, le="{le}"}}', "values": values}
            for le, values in [("0.1", quick), ("+Inf", everybody)]
            if values
        ]
        samples = [] if share is None else [{"labels": "{}", "value": share}]
        # Its sum, since some queries give one for each pod. Rounded, since none is quite what it should be.
        tests = [
            {"expr": f"sum(round({query}, 0.001))", "eval_time": "5m", "exp_samples": samples} for query in queries
        ]
        return {"interval": "15s", "input_series": series, "promql_expr_test": tests}

    cases = [
        case("0+54x20", "0+60x20", 0.1),
        case("0+0x20", "0+60x20", 1),
        # Nobody comes; then nobody is asked.
        case("54x20", "60x20", 0),
        case(None, None, None),
    ]
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        json.dump({"evaluation_interval": "15s", "tests": cases}, file)
        file.flush()
        answer = subprocess.run(["promtool", "test", "rules", file.name], capture_output=True, text=True)
    expect(answer.returncode == 0, answer.stdout + answer.stderr)


def check_kubernetes():
    check_files()
    folders = [ROOT / "base", *sorted(path for path in (ROOT / "overlays").iterdir())]
    of_operators, queries, autoscalers, count = [], [], [], 0
    for folder in folders:
        documents = built(folder)
        count += len(documents)
        for document in documents:
            where = f"{folder}: {document['kind']}"
            if check_kind(where, document):
                of_operators.append((where, document))
            if document["kind"] == "ScaledObject":
                queries += check_scalers(where, document)
            if document["kind"] == "HorizontalPodAutoscaler":
                autoscalers.append(document)
        if documents:
            check_together(folder, documents)
    expect({document["kind"] for _, document in of_operators} == {kind for _, kind in OPERATORS}, "an operator's kind is nowhere")
    check_operators(of_operators)
    queries += check_adapter(autoscalers)
    if shutil.which("promtool"):
        check_queries(queries)
    else:
        print("there is no promtool: the queries are not checked")
    print(f"{len(folders)} kustomizations, {count} resources, {len(queries)} queries")


# Nomad.


def is_of(value, kind):
    match kind:
        case "string":
            return isinstance(value, str)
        case "duration":
            return isinstance(value, str) and GO_DURATION.fullmatch(value) is not None
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "boolean":
            return isinstance(value, bool)
        case "list of strings":
            return isinstance(value, list) and all(isinstance(each, str) for each in value)
    raise ValueError(kind)


def check_block(where, block, schema):
    for name, value in block.items():
        path = f"{where}.{name}"
        if name.upper() in schema:
            for labelled in value:
                for label, inner in labelled.items():
                    check_block(f"{path} {label}", inner, schema[name.upper()])
        elif isinstance(schema.get(name), dict):
            expect(isinstance(value, list), f"{path}: is a block")
            for inner in value if isinstance(value, list) else []:
                check_block(path, inner, schema[name])
        elif name in schema:
            expect(is_of(value, schema[name]), f"{path}: {value!r} is no {schema[name]}")
        else:
            wrong.append(f"{path}: Nomad does not know it")


def check_nomad():
    options = hcl2.SerializationOptions(with_comments=False, strip_string_quotes=True, explicit_blocks=False)
    job = hcl2.loads(NOMAD.read_text(), serialization_options=options)
    check_block(NOMAD.name, job, JOB)
    if wrong:
        return
    (group,) = job["job"][0]["web"]["group"][0].values()
    (task,) = group["task"][0].values()
    (network,) = group["network"]
    ports = {label: port["to"] for each in network["port"] for label, port in each.items()}
    config = task["config"][0]
    expect(set(config["ports"]) == ports.keys(), f"{NOMAD}: ports of group and task differ")
    for service in group["service"]:
        for each in [service, *service.get("check", [])]:
            expect(each["port"] in ports, f"{NOMAD}: there is no port {each['port']}")
    port = argument(config["args"], "--metrics").rpartition(":")[2]
    expect(port == str(ports["metrics"]), f"{NOMAD}: --metrics has the port {port}")
    expect(task["kill_signal"] == "SIGTERM", f"{NOMAD}: {task['kill_signal']} is no graceful stop")
    end = seconds(argument(config["args"], "--drain-timeout", DRAIN)) + seconds(argument(config["args"], "--kill-timeout", KILL))
    expect(end < seconds(task["kill_timeout"]) <= 30, f"{NOMAD}: a kill_timeout of {task['kill_timeout']}")
    print("one job of Nomad")


check_kubernetes()
check_nomad()
if wrong:
    sys.exit("\n".join(wrong))
