"""Every value is typed, closed, described, and of some effect; a typo anywhere is refused."""

import copy
import json

import pytest
import yaml

import readme
import render

SCHEMA = json.loads((render.CHART / "values.schema.json").read_text())
VALUES = yaml.safe_load((render.CHART / "values.yaml").read_text())
EVERYTHING = yaml.safe_load((render.CHART / "ci" / "everything-values.yaml").read_text())

# Where keys come from elsewhere: labels, a parent chart's globals, objects of Kubernetes that are not ours to type.
OPEN = {
    "properties.global",
    "properties.extraManifests.items",
    "definitions.volume.properties.*",
    "definitions.container.properties.lifecycle",
    "definitions.container.properties.resizePolicy.items",
    "definitions.container.properties.restartPolicyRules.items",
    "definitions.container.properties.volumeDevices.items",
    "definitions.oauth2.properties.proxyConnectHeader",
}


def leaves(value, path=()):
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    else:
        yield path, value


def resolve(schema):
    while "$ref" in schema:
        schema = SCHEMA["definitions"][schema["$ref"].rsplit("/", 1)[1]]
    return schema


def described_leaves():
    """Every key that is described, with its default: what lies below it is the user's."""
    descriptions = readme.described((render.CHART / "values.yaml").read_text())
    for key in descriptions:
        value = VALUES
        for part in key.split("."):
            value = value[part]
        yield tuple(key.split(".")), value


LEAVES = dict(described_leaves())


def test_every_key_is_described():
    for path, _ in leaves(VALUES):
        assert any(path[: len(described)] == described for described in LEAVES), ".".join(path)


def test_every_key_is_typed():
    for path, _ in leaves(VALUES):
        schema = SCHEMA
        for part in path:
            schema = resolve(schema)
            typed = schema.get("properties", {}).get(part) or schema.get("additionalProperties")
            assert isinstance(typed, dict), ".".join(path)
            schema = typed


def test_every_key_of_the_schema_is_a_value():
    def walk(schema, value, path):
        for key, item in schema.get("properties", {}).items():
            assert key in value, ".".join((*path, key))
            # What is described as a whole is filled in by the user.
            if (*path, key) not in LEAVES:
                walk(resolve(item), value[key], (*path, key))

    # The condition of a parent chart is not read by this one.
    walk({"properties": {key: item for key, item in SCHEMA["properties"].items() if key != "enabled"}}, VALUES, ())


def test_every_object_of_the_schema_is_closed():
    found = set()

    def walk(schema, path):
        if isinstance(schema, dict):
            if schema.get("type") == "object" or (isinstance(schema.get("type"), list) and "object" in schema["type"]):
                if "additionalProperties" not in schema:
                    found.add("definitions.volume.properties.*" if path.startswith("definitions.volume.") else path)
            for key, item in schema.items():
                walk(item, f"{path}.{key}" if path else key)
        elif isinstance(schema, list):
            for item in schema:
                walk(item, path)

    walk(SCHEMA, "")
    assert found == OPEN


def test_the_readme_is_that_of_the_values():
    assert (render.CHART / "README.md").read_text() == readme.readme(), "run `make chart-docs`"


TYPOS = [
    (render.nested("podMonitr", "enabled", True), "podMonitr"),
    (render.nested("podMonitor", "enable", True), "enable"),
    (render.nested("podMonitor", "relabelings", [{"sourceLabel": ["x"]}]), "sourceLabel"),
    (render.nested("podMonitor", "relabelings", [{"action": "dropp"}]), "action"),
    (render.nested("podMonitor", "tlsConfig", {"ca": {"secrt": {}}}), "secrt"),
    (render.nested("podMonitor", "tlsConfig", {"caFile": "/x"}), "caFile"),
    (render.nested("podMonitor", "bearerTokenFile", "/x"), "bearerTokenFile"),
    (render.nested("podMonitor", "interval", "30"), "interval"),
    (render.nested("podMonitor", "interval", 30), "interval"),
    (render.nested("serviceMonitor", "targetLabel", []), "targetLabel"),
    (render.nested("image", "tg", "1"), "tg"),
    (render.nested("image", "tag", 1.0), "tag"),
    (render.nested("image", "digest", "sha256:abc"), "digest"),
    (render.nested("image", "pullPolicy", "ifNotPresent"), "pullPolicy"),
    (render.nested("hostPaths", "kata", {"enabled": True}), "kata"),
    (render.nested("hostPaths", "proc", "mountpath", "/x"), "mountpath"),
    (render.nested("hostPaths", "proc", "mountPropagation", "HostToContainr"), "mountPropagation"),
    (render.nested("hostPaths", "kataGo", "mountPath", "/somewhere"), "mountPath"),
    (render.nested("collectors", "fs", "enabled", True), "fs"),
    (render.nested("collectors", "kata", "processIO", True), "processIO"),
    (render.nested("collectors", "shim", "scrape", "unsafe"), "scrape"),
    (render.nested("collectors", "fd", "enabled", "yes"), "enabled"),
    (render.nested("scope", "katas"), "scope"),
    (render.nested("k8sDistribution", "k8"), "k8sDistribution"),
    (render.nested("runtime", "endpoint", "tcp://127.0.0.1:1"), "endpoint"),
    (render.nested("config", "max-age", 1), "max-age"),
    (render.nested("config", "max-age-secs", "1"), "max-age-secs"),
    (render.nested("config", "host-root", "/"), "host-root"),
    (render.nested("listen", "port", 70000), "port"),
    (render.nested("listen", "address", "localhost"), "address"),
    (render.nested("health", "separateListener", True), "separateListener"),
    (render.nested("tolerations", [{"operater": "Exists"}]), "operater"),
    (render.nested("affinity", {"nodeAffinty": {}}), "nodeAffinty"),
    (render.nested("affinity", {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"terms": []}}}), "terms"),
    (render.nested("resources", "limits", "memory", "128mb"), "memory"),
    (render.nested("resources", "limit", {}), "limit"),
    (render.nested("securityContext", "capabilities", "ad", []), "ad"),
    (render.nested("securityContext", "priviledged", True), "priviledged"),
    (render.nested("podSecurityContext", "seccompProfile", "type", "Default"), "type"),
    (render.nested("hostUsers", False), "hostUsers"),
    (render.nested("updateStrategy", "rollingUpdate", "maxUnavailble", 1), "maxUnavailble"),
    (render.nested("tls", "certificate", "issuer", {}), "issuer"),
    (render.nested("tls", "minVersion", "TLS11"), "minVersion"),
    (render.nested("tls", "clientAuth", "caSecert", "x"), "caSecert"),
    (render.nested("basicAuth", "users", {"me": "password"}), "me"),
    (render.nested("auth", "kubernetes", "enable", True), "enable"),
    (render.nested("webConfig", {"tls_server_config": {"certfile": "x"}}), "certfile"),
    (render.nested("kubeletCompat", "jobName", "x"), "jobName"),
    (render.nested("prometheusRule", "groups", [{"name": "a", "rules": [{"exp": "1"}]}]), "exp"),
    (render.nested("prometheusRule", "defaultRules", "alert", True), "alert"),
    (render.nested("dashboards", "labelvalue", "x"), "labelvalue"),
    (render.nested("networkPolicy", "ingress", [{}]), "ingress"),
    (render.nested("networkPolicy", "ingress", {"from": [{"podselector": {}}]}), "podselector"),
    (render.nested("env", [{"nam": "X"}]), "nam"),
    (render.nested("extraVolumes", [{"name": "x", "emptydir": {}}]), "emptydir"),
    (render.nested("extraVolumeMounts", [{"name": "x", "mountpath": "/"}]), "mountpath"),
    (render.nested("extraContainers", [{"name": "x", "img": "y"}]), "img"),
    (render.nested("livenessProbe", {"httpget": {}}), "httpget"),
    (render.nested("rbac", "extraRules", [{"verb": ["get"], "verbs": []}]), "verb"),
    (render.nested("verticalPodAutoscaler", "updatePolicy", "updateMod", "Off"), "updateMod"),
    (render.nested("openshift", "scc", {}), "scc"),
    (render.nested("service", "ipDualStack", "enable", True), "enable"),
    (render.nested("serviceAccount", "automount", True), "automount"),
]


@pytest.mark.parametrize("helm", render.HELMS)
@pytest.mark.parametrize("values, named", TYPOS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_typo_is_refused_by_name(helm, values, named):
    with pytest.raises(render.Refused) as refused:
        render.text(values, version=helm)
    message = str(refused.value)
    assert "schema" in message and named in message


# Values that make an otherwise idle key show, and what to change a key to where a guess would not do.
BASE = {
    "service": {"clusterIP": ""},
    "basicAuth": {"users": {}},
}
MONITORED = {"podMonitor": {"enabled": False}, "serviceMonitor": {"enabled": True}}
CERTIFIED = {
    "tls": {"enabled": True, "certificate": {"enabled": True, "issuerRef": {"name": "ca"}}},
    "podMonitor": {"tlsConfig": {"insecureSkipVerify": True}},
}
CLIENTS = render.merged(CERTIFIED, {
    "tls": {"clientAuth": {"enabled": True, "caSecret": "ca"}},
    "podMonitor": {"tlsConfig": {"cert": {"secret": {"name": "a", "key": "b"}}, "keySecret": {"name": "a", "key": "b"}}},
})
SECRET = {"name": "secret", "key": "key"}
NEEDS = {
    ("serviceMonitor",): MONITORED,
    ("hostPaths", "shimSockets"): {"k8sDistribution": "k3s"},
    ("tls",): CERTIFIED,
    ("tls", "clientAuth"): CLIENTS,
    # Both add SYS_PTRACE.
    ("collectors", "kata", "processIo"): {"collectors": {"fd": {"enabled": False}}},
    # Claims mount the token, and need the collector.
    ("serviceAccount", "automountServiceAccountToken"): {"collectors": {"volume": {"claims": False}}},
    ("collectors", "volume", "enabled"): {"collectors": {"volume": {"claims": False}}},
    ("health", "port"): {"health": {"separateListener": "always"}},
    ("networkPolicy", "egress"): {"auth": {"kubernetes": {"enabled": True}}, "podMonitor": {"scrapeClass": "tokens"}},
    ("dashboards", "folderAnnotation"): {"dashboards": {"folder": "x"}},
}
CHANGES = {
    ("global", "imagePullSecrets"): ["other"],
    ("imagePullSecrets",): ["other"],
    ("commonLabels",): {"a": "b"},
    ("podAnnotations",): {"a": "b"},
    ("podLabels",): {"a": "b"},
    ("daemonsetAnnotations",): {"a": "b"},
    ("image", "digest"): "sha256:" + "a" * 64,
    ("image", "pullPolicy"): "Always",
    ("updateStrategy",): {"type": "OnDelete"},
    ("nodeSelector",): {"a": "b"},
    ("tolerations",): [],
    ("affinity",): {"podAffinity": {}},
    ("hostUsers",): True,
    ("dnsPolicy",): "Default",
    ("dnsConfig",): {"searches": ["x"]},
    ("podSecurityContext",): {"runAsUser": 0},
    ("securityContext",): {"procMount": "Default"},
    ("resources",): {"limits": {"cpu": "1"}},
    ("serviceAccount", "create"): False,
    ("serviceAccount", "annotations"): {"a": "b"},
    ("rbac", "extraRules"): [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}],
    ("k8sDistribution",): "k0s",
    ("runtime", "endpoint"): "unix:///run/other/other.sock",
    ("runtime", "containerdState"): "/run/state",
    ("hostPaths", "runtime", "path"): "/run",
    ("hostPaths", "runtime", "mountPath"): "/run/other",
    ("hostPaths", "kubeletPods", "path"): "/other/pods",
    ("listen", "address"): "[::]",
    ("health", "separateListener"): "always",
    ("config",): {"max-age-secs": 7},
    ("existingConfigMap",): "mine",
    ("scope",): "kata",
    ("collectors", "shim", "scrape"): "off",
    ("logLevel",): "debug",
    ("logFormat",): "logfmt",
    ("extraArgs",): ["--scope=kata"],
    ("env",): [{"name": "A", "value": "b"}],
    ("envFrom",): [{"secretRef": {"name": "x"}}],
    ("extraVolumes",): [{"name": "x", "emptyDir": {}}],
    ("extraVolumeMounts",): [{"name": "scratch", "mountPath": "/x"}],
    ("extraContainers",): [{"name": "x", "image": "y"}],
    ("initContainers",): [{"name": "x", "image": "y"}],
    ("extraManifests",): [{"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "x"}}],
    ("service", "enabled"): False,
    ("service", "type"): "NodePort",
    ("service", "clusterIP"): "10.0.0.1",
    ("service", "portName"): "web",
    ("service", "annotations"): {"a": "b"},
    ("service", "labels"): {"a": "b"},
    ("service", "ipDualStack", "ipFamilies"): ["IPv6"],
    ("service", "ipDualStack", "ipFamilyPolicy"): "RequireDualStack",
    ("service", "internalTrafficPolicy"): "Local",
    ("kubeletCompat", "metricsPath"): "/other",
    ("prometheusRule", "defaultRules", "additionalAlertLabels"): {"a": "b"},
    ("prometheusRule", "groups"): [{"name": "x", "rules": []}],
    ("dashboards", "annotations"): {"a": "b"},
    ("networkPolicy", "ingress", "from"): [{"podSelector": {}}],
    ("networkPolicy", "egress", "apiServerPorts"): [8443],
    ("networkPolicy", "egress", "apiServerTo"): [{"podSelector": {}}],
    ("networkPolicy", "egress", "extra"): [{"to": [{"podSelector": {}}]}],
    ("tls", "enabled"): False,
    ("tls", "existingSecret"): "mine",
    ("tls", "minVersion"): "TLS13",
    ("tls", "certificate", "enabled"): False,
    ("tls", "certificate", "issuerRef"): {"name": "other"},
    ("tls", "certificate", "dnsNames"): ["x.example.org"],
    ("tls", "certificate", "privateKey"): {"algorithm": "RSA", "size": 4096},
    ("tls", "clientAuth", "enabled"): False,
    ("serviceMonitor", "enabled"): False,
    ("tls", "clientAuth", "allowedSans"): ["x"],
    ("basicAuth", "users"): {"me": "$2b$04$DTHxMmq0RfbvnL8y7EBFlOKFAPPTzCq2J1iVRUJXZb4qDV9yP3TgS"},
    ("auth", "kubernetes", "enabled"): True,
    ("webConfig",): {"http_server_config": {"http2": False}},
    ("existingWebConfigSecret",): "mine",
    ("livenessProbe",): {"tcpSocket": {"port": 1}},
    ("readinessProbe",): {"tcpSocket": {"port": 1}},
    ("startupProbe",): {"tcpSocket": {"port": 1}},
    ("verticalPodAutoscaler", "annotations"): {"a": "b"},
    ("verticalPodAutoscaler", "recommenders"): [{"name": "x"}],
    ("verticalPodAutoscaler", "controlledResources"): ["cpu"],
    ("verticalPodAutoscaler", "controlledValues"): "RequestsOnly",
    ("verticalPodAutoscaler", "maxAllowed"): {"memory": "1Gi"},
    ("verticalPodAutoscaler", "minAllowed"): {"memory": "1Mi"},
    ("verticalPodAutoscaler", "updatePolicy"): {"updateMode": "Off"},
    ("openshift", "securityContextConstraints", "annotations"): {"a": "b"},
}
# What else a change needs, lest the chart refuse it.
WITH = {
    ("tls", "enabled"): {"tls": {"certificate": {"enabled": False}}},
    ("tls", "existingSecret"): {"tls": {"certificate": {"enabled": False}}},
    ("basicAuth", "users"): {"podMonitor": {"basicAuth": {"username": SECRET, "password": SECRET}}},
    ("auth", "kubernetes", "enabled"): {"podMonitor": {"scrapeClass": "tokens"}},
}
for monitor in ("podMonitor", "serviceMonitor"):
    CHANGES |= {
        (monitor, "labels"): {"a": "b"},
        (monitor, "annotations"): {"a": "b"},
        (monitor, "podTargetLabels"): ["x"],
        (monitor, "targetLabels"): ["x"],
        (monitor, "attachMetadata"): {"node": False},
        (monitor, "interval"): "7s",
        (monitor, "scrapeTimeout"): "7s",
        (monitor, "path"): "/metrics/cadvisor",
        (monitor, "params"): {"a": ["b"]},
        (monitor, "scheme"): "https",
        (monitor, "tlsConfig"): {"insecureSkipVerify": True},
        (monitor, "authorization"): {"credentials": SECRET},
        (monitor, "basicAuth"): {"username": SECRET, "password": SECRET},
        (monitor, "oauth2"): {"clientId": {"secret": SECRET}, "clientSecret": SECRET, "tokenUrl": "https://x"},
        (monitor, "enableHttp2"): True,
        (monitor, "followRedirects"): True,
        (monitor, "filterRunning"): False,
        (monitor, "relabelings"): [{"action": "drop"}],
        (monitor, "metricRelabelings"): [{"action": "drop"}],
        (monitor, "scrapeProtocols"): ["OpenMetricsText0.0.1"],
        (monitor, "fallbackScrapeProtocol"): "OpenMetricsText0.0.1",
        (monitor, "bodySizeLimit"): "1MB",
    }
CHANGES |= {("prometheusRule", "labels"): {"a": "b"}, ("prometheusRule", "annotations"): {"a": "b"}}


def first_alert():
    for group in yaml.safe_load((render.CHART / "files" / "rules" / "alerts.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            if "alert" in rule:
                return rule["alert"]
    raise AssertionError("files/rules/alerts.yaml has no alert")


def changed(path, default):
    if path == ("prometheusRule", "defaultRules", "disabled"):
        return {first_alert(): True}
    if path in CHANGES:
        return CHANGES[path]
    if isinstance(default, bool):
        base = EVERYTHING
        for part in path:
            base = base.get(part, {}) if isinstance(base, dict) else {}
        return not (base if isinstance(base, bool) else default)
    if isinstance(default, int):
        return default + 1
    if path[0] == "hostPaths":
        return {"type": "", "mountPropagation": "Bidirectional", "path": "/other"}.get(path[-1]) or {
            "type": "", "mountPath": "/other" + default}.get(path[-1], "")
    if isinstance(default, str):
        return default + "x" if default else "x"
    raise AssertionError(f"say in CHANGES what {'.'.join(path)} is changed to")


# A mount path of what lies in the run directory moves with the others.
TOGETHER = {
    "hostPaths": {
        "kataGo": {"mountPath": "/other/run/vc/sbs"},
        "kataGoVm": {"mountPath": "/other/run/vc/vm"},
        "kataGoFirecracker": {"mountPath": "/other/run/vc/firecracker"},
        "kataRs": {"mountPath": "/other/run/kata"},
        "shimSockets": {"mountPath": "/other/run/containerd/s"},
        "kataDirectVolumes": {"mountPath": "/other/run/kata-containers/shared/direct-volumes"},
    }
}


@pytest.mark.parametrize("path", LEAVES, ids=".".join)
def test_every_value_has_an_effect(path):
    base = render.merged(copy.deepcopy(EVERYTHING), BASE)
    for length in range(1, len(path) + 1):
        base = render.merged(base, NEEDS.get(path[:length], {}))
    default = LEAVES[path]
    new = render.merged(base, WITH.get(path, {}))
    if path[0] == "hostPaths" and path[-1] == "mountPath" and path[1] in TOGETHER["hostPaths"]:
        new = render.merged(new, TOGETHER)
    else:
        new = render.merged(new, render.nested(*path, changed(path, default)))
    assert render.text(base) != render.text(new)
