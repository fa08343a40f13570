"""What the chart promises, seen in what it renders."""

import json
import re

import pytest
import yaml

import render
from render import container, nested, of_kind, one, pod

EVERYTHING = render.CHART / "ci" / "everything-values.yaml"
LONG = "a-release-with-a-name-that-is-as-long-as-helm-allows1"
assert len(LONG) == 53
SECRET = {"name": "secret", "key": "key"}
TOKENS = {"auth": {"kubernetes": {"enabled": True}}}
CERTIFICATE = {"tls": {"enabled": True, "existingSecret": "cert"}}
CLIENTS = render.merged(CERTIFICATE, {"tls": {"clientAuth": {"enabled": True, "caSecret": "ca"}}})


def refused(values) -> str:
    with pytest.raises(render.Refused) as error:
        render.text(values)
    return str(error.value)


def arguments(objects) -> dict[str, str]:
    return dict(argument.removeprefix("--").partition("=")[::2] for argument in container(objects)["args"])


def mounts(objects) -> dict[str, dict]:
    """Host paths: where on the node, where in the container, how."""
    volumes = {volume["name"]: volume["hostPath"] for volume in pod(objects)["volumes"] if "hostPath" in volume}
    return {
        volumes[mount["name"]]["path"]: mount | volumes[mount["name"]] | {"mountPath": mount["mountPath"]}
        for mount in container(objects)["volumeMounts"]
        if mount["name"] in volumes
    }


def test_the_container_is_root_without_capabilities_on_a_read_only_root():
    objects = render.render()
    assert pod(objects)["securityContext"] == {"seccompProfile": {"type": "RuntimeDefault"}}
    assert container(objects)["securityContext"] == {
        "runAsUser": 0,
        "runAsGroup": 0,
        "runAsNonRoot": False,
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    for flag in ("hostNetwork", "hostPID", "hostIPC", "enableServiceLinks", "automountServiceAccountToken"):
        assert pod(objects)[flag] is False, flag
    assert "hostUsers" not in pod(objects)


@pytest.mark.parametrize(
    "collectors, added",
    [
        ({}, None),
        ({"kata": {"processIo": True}}, ["SYS_PTRACE"]),
        ({"fd": {"enabled": True}}, ["DAC_READ_SEARCH", "SYS_PTRACE"]),
        ({"volume": {"enabled": True}}, None),
        ({"emptydir": {"enabled": True}}, ["DAC_READ_SEARCH"]),
        ({"fd": {"enabled": True}, "kata": {"processIo": True}}, ["DAC_READ_SEARCH", "SYS_PTRACE"]),
    ],
)
def test_capabilities_come_with_the_collector_that_needs_them(collectors, added):
    objects = render.render({"collectors": collectors})
    assert container(objects)["securityContext"]["capabilities"].get("add") == added
    more = render.render({"collectors": collectors, "securityContext": {"capabilities": {"add": ["NET_RAW"]}}})
    assert container(more)["securityContext"]["capabilities"]["add"] == sorted((added or []) + ["NET_RAW"])


def test_the_nodes_paths_are_mounted_read_only_where_the_agent_looks():
    found = mounts(render.render())
    both = {"kind": "DirectoryOrCreate", "propagation": "HostToContainer"}
    expected = {
        "/run/vc/sbs": ("/run/vc/sbs", *both.values()),
        "/run/vc/vm": ("/run/vc/vm", *both.values()),
        "/run/vc/firecracker": ("/run/vc/firecracker", *both.values()),
        "/run/kata": ("/run/kata", *both.values()),
        "/run/containerd": ("/run/containerd", "Directory", "HostToContainer"),
        "/proc": ("/host/proc", "Directory", "None"),
        "/sys/fs/cgroup": ("/host/sys/fs/cgroup", "Directory", "HostToContainer"),
        "/sys/devices": ("/host/sys/devices", "Directory", "None"),
        "/sys/class": ("/host/sys/class", "Directory", "None"),
    }
    assert {path: (m["mountPath"], m["type"], m["mountPropagation"]) for path, m in found.items()} == expected
    assert all(mount["readOnly"] is True for mount in found.values())


@pytest.mark.parametrize("shape", render.SHAPES, ids=lambda path: path.name)
def test_every_mount_has_its_volume_and_both_kata_roots_are_there(shape):
    objects = render.render(files=[shape])
    names = [volume["name"] for volume in pod(objects)["volumes"]]
    assert len(names) == len(set(names))
    assert {mount["name"] for mount in container(objects)["volumeMounts"]} == set(names)
    assert {"/run/vc/sbs", "/run/vc/vm", "/run/vc/firecracker", "/run/kata"} <= mounts(objects).keys()


@pytest.mark.parametrize(
    "distribution, socket, state, mounted",
    [
        ("k8s", "/run/containerd/containerd.sock", None, {"/run/containerd"}),
        ("k3s", "/run/k3s/containerd/containerd.sock", None, {"/run/k3s/containerd", "/run/containerd/s"}),
        ("rke2", "/run/k3s/containerd/containerd.sock", None, {"/run/k3s/containerd", "/run/containerd/s"}),
        ("k0s", "/run/k0s/containerd.sock", "/run/k0s/containerd", {"/run/k0s", "/run/containerd/s"}),
        (
            "microk8s",
            "/var/snap/microk8s/common/run/containerd.sock",
            "/var/snap/microk8s/common/run/containerd",
            {"/var/snap/microk8s/common/run", "/run/containerd/s"},
        ),
        ("crio", "/run/crio/crio.sock", None, {"/run/crio"}),
    ],
)
def test_a_kind_of_cluster_says_where_the_runtime_is(distribution, socket, state, mounted):
    objects = render.render({"k8sDistribution": distribution})
    assert arguments(objects)["runtime-endpoint"] == f"unix://{socket}"
    assert arguments(objects).get("containerd-state") == state
    assert mounts(objects).keys() - mounts(render.render({"runtime": {"endpoint": "none"}})).keys() == mounted


def test_a_socket_of_ones_own_is_mounted_by_its_directory():
    objects = render.render({"runtime": {"endpoint": "unix:///run/cri-dockerd/cri.sock"}})
    assert arguments(objects)["runtime-endpoint"] == "unix:///run/cri-dockerd/cri.sock"
    assert mounts(objects)["/run/cri-dockerd"]["mountPath"] == "/run/cri-dockerd"
    moved = {"runtime": {"endpoint": "/run/cri-dockerd.sock"}, "hostPaths": {"runtime": {"path": "/run", "mountPath": "/node/run"}}}
    objects = render.render(moved)
    assert arguments(objects)["runtime-endpoint"] == "unix:///node/run/cri-dockerd.sock"
    assert mounts(objects)["/run"]["mountPath"] == "/node/run"
    assert "does not contain" in refused({"hostPaths": {"runtime": {"path": "/elsewhere"}}})
    objects = render.render({"runtime": {"endpoint": "none"}})
    assert arguments(objects)["runtime-endpoint"] == "none"
    assert "/run/containerd" not in mounts(objects)


def test_mount_paths_and_flags_line_up():
    objects = render.render({"hostPaths": {"proc": {"mountPath": "/p"}, "cgroup": {"mountPath": "/c"}}})
    assert arguments(objects)["procfs"] == "/p"
    assert arguments(objects)["cgroupfs"] == "/c"
    paths = {"kataGo": "/n/run/vc/sbs", "kataGoVm": "/n/run/vc/vm", "kataGoFirecracker": "/n/run/vc/firecracker", "kataRs": "/n/run/kata"}
    moved = {"hostPaths": {key: {"mountPath": path} for key, path in paths.items()}}
    assert arguments(render.render(moved))["run-dir"] == "/n/run"
    assert "different run directories: /n/run, /run" in refused({"hostPaths": {"kataRs": {"mountPath": "/n/run/kata"}}})


def test_names_are_cut_to_what_kubernetes_takes():
    values = yaml.safe_load(EVERYTHING.read_text()) | {"nameOverride": "n" * 80}
    values["tls"] = {"enabled": True, "certificate": {"enabled": True, "issuerRef": {"name": "ca"}}}
    values["podMonitor"] |= {"tlsConfig": {"insecureSkipVerify": True}}
    values["extraManifests"] = []  # their names are the user's
    for override in ({}, {"fullnameOverride": "f" * 70 + "-x"}):
        objects = render.render(values | override, release=LONG, namespace="n" * 63)
        for found in objects:
            name = found["metadata"]["name"]
            assert len(name) <= 63 and name[-1].isalnum(), (found["kind"], name)
            for label, value in found["metadata"].get("labels", {}).items():
                assert len(value) <= 63 and (not value or value[-1].isalnum()), (found["kind"], label, value)
        boards = [each["metadata"]["name"] for each in of_kind(objects, "ConfigMap") if "kata-" in each["metadata"]["name"]]
        assert len(set(boards)) == len(boards) >= 2, "the suffix that tells them apart is not cut off"


CLUSTER_WIDE = {"ClusterRole", "ClusterRoleBinding", "SecurityContextConstraints"}


@pytest.mark.parametrize("shape", render.SHAPES, ids=lambda path: path.name)
def test_the_namespace_is_that_of_the_override_everywhere(shape):
    objects = render.render({"namespaceOverride": "elsewhere"}, files=[shape])
    for found in objects:
        expected = None if found["kind"] in CLUSTER_WIDE else "elsewhere"
        assert found["metadata"].get("namespace") == expected, found["kind"]
    rest = json.dumps([found for found in objects if found["kind"] not in ("PrometheusRule", "ConfigMap")])
    rest = rest.replace(".monitoring.svc", "")  # names in certificates are the user's
    assert '"monitoring"' not in rest.replace('"release": "monitoring"', "").replace('"kubernetes.io/metadata.name": "monitoring"', "")


def test_common_labels_are_on_every_object_and_pod():
    objects = [found for found in render.render(files=[EVERYTHING]) if found["metadata"]["name"] not in ("more", "kata-pulse-text")]
    labelled = [found["metadata"] for found in objects] + [one(objects, "DaemonSet")["spec"]["template"]["metadata"]]
    recommended = {"name", "instance", "version", "component", "part-of", "managed-by"}
    for metadata in labelled:
        assert metadata["labels"]["team"] == "kata-pulse-team"
        assert {f"app.kubernetes.io/{label}" for label in recommended} | {"helm.sh/chart"} <= metadata["labels"].keys()


def test_the_selector_is_name_and_instance_whatever_is_added():
    expected = {"app.kubernetes.io/name": "kata-pulse", "app.kubernetes.io/instance": "kata-pulse"}
    added = {key: "other" for key in expected} | {"app.kubernetes.io/version": "other", "a": "b"}
    objects = render.render({"commonLabels": added, "podLabels": added, "service": {"labels": added}, "image": {"tag": "2"}})
    daemonset = one(objects, "DaemonSet")
    assert daemonset["spec"]["selector"]["matchLabels"] == expected == one(objects, "Service")["spec"]["selector"]
    labels = daemonset["spec"]["template"]["metadata"]["labels"]
    assert labels["a"] == "b" and expected.items() <= labels.items()


def test_two_releases_share_no_object_outside_namespaces():
    values = TOKENS | {"openshift": {"securityContextConstraints": {"enabled": True}}}
    one_, other = (render.render(values, namespace=namespace) for namespace in ("a", "b"))
    names = lambda objects: {found["metadata"]["name"] for found in objects if found["kind"] in CLUSTER_WIDE}
    assert names(one_) and not names(one_) & names(other)


def test_the_image():
    image = lambda values: container(render.render(values))["image"]
    digest = "sha256:" + "0" * 64
    assert image({}) == "ghcr.io/kata-pulse/kata-pulse:0.1.0"
    assert image({"image": {"tag": "1.2.3"}}) == "ghcr.io/kata-pulse/kata-pulse:1.2.3"
    assert image({"image": {"tag": "1.2.3", "digest": digest}}) == f"ghcr.io/kata-pulse/kata-pulse@{digest}"
    assert image({"image": {"registry": "r:5000"}, "global": {"imageRegistry": "g"}}) == "g/kata-pulse/kata-pulse:0.1.0"
    assert image({"image": {"registry": "", "repository": "local"}}) == "local:0.1.0"
    secrets = pod(render.render({"global": {"imagePullSecrets": ["a"]}, "imagePullSecrets": [{"name": "b"}, "a"]}))
    assert secrets["imagePullSecrets"] == [{"name": "a"}, {"name": "b"}]


def test_no_token_and_no_role_unless_a_feature_asks_the_api():
    objects = render.render()
    assert not of_kind(objects, "ClusterRole") and not of_kind(objects, "ClusterRoleBinding")
    assert pod(objects)["automountServiceAccountToken"] is False
    assert one(objects, "ServiceAccount")["automountServiceAccountToken"] is False
    objects = render.render(TOKENS)
    assert pod(objects)["automountServiceAccountToken"] is True
    assert "--auth-kubernetes" in container(objects)["args"]
    assert one(objects, "ClusterRole")["rules"] == [
        {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
        {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]},
    ]
    binding = one(objects, "ClusterRoleBinding")
    assert binding["roleRef"]["name"] == one(objects, "ClusterRole")["metadata"]["name"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": pod(objects)["serviceAccountName"], "namespace": "monitoring"}]
    assert not of_kind(render.render(TOKENS | {"rbac": {"create": False}}), "ClusterRole")


def test_volumes_bring_their_mounts_and_claims_their_right():
    objects = render.render({"collectors": {"volume": {"enabled": True}}})
    added = {path: found for path, found in mounts(objects).items() if path not in mounts(render.render())}
    assert {path: (m["mountPath"], m["type"], m["mountPropagation"], m["readOnly"]) for path, m in added.items()} == {
        "/var/lib/kubelet/pods": ("/host/var/lib/kubelet/pods", "Directory", "HostToContainer", True),
        "/run/kata-containers/shared/direct-volumes": (
            "/run/kata-containers/shared/direct-volumes", "DirectoryOrCreate", "HostToContainer", True
        ),
    }
    assert arguments(objects)["kubelet-dir"] == "/host/var/lib/kubelet"
    assert not of_kind(objects, "ClusterRole") and pod(objects)["automountServiceAccountToken"] is False
    claims = {"collectors": {"volume": {"enabled": True, "claims": True}}}
    objects = render.render(claims | {"networkPolicy": {"enabled": True}})
    assert "--volume-claims" in container(objects)["args"]
    assert pod(objects)["automountServiceAccountToken"] is True
    assert one(objects, "ClusterRole")["rules"] == [
        {"apiGroups": [""], "resources": ["persistentvolumes"], "verbs": ["get"]}
    ]
    assert one(objects, "NetworkPolicy")["spec"]["egress"], "the API server can be reached"
    walked = render.render({"collectors": {"emptydir": {"enabled": True}}})
    assert mounts(walked).keys() - mounts(render.render()).keys() == {"/var/lib/kubelet/pods"}
    assert arguments(walked)["kubelet-dir"] == "/host/var/lib/kubelet"
    assert "needs collectors.volume.enabled" in refused({"collectors": {"volume": {"claims": True}}})


@pytest.mark.parametrize(
    "values, kubelet",
    [
        ({"k8sDistribution": "k0s"}, "/var/lib/k0s/kubelet"),
        ({"k8sDistribution": "microk8s"}, "/var/snap/microk8s/common/var/lib/kubelet"),
        ({"k8sDistribution": "k3s"}, "/var/lib/kubelet"),
        ({"hostPaths": {"kubeletPods": {"path": "/data/kubelet/pods"}}}, "/data/kubelet"),
    ],
)
def test_the_kubelets_directory_is_where_the_cluster_has_it(values, kubelet):
    objects = render.render(values | {"collectors": {"volume": {"enabled": True}}})
    assert arguments(objects)["kubelet-dir"] == f"/host{kubelet}"
    assert mounts(objects)[f"{kubelet}/pods"]["mountPath"] == f"/host{kubelet}/pods"


def test_a_service_account_of_ones_own():
    objects = render.render({"serviceAccount": {"create": False, "name": "mine"}})
    assert pod(objects)["serviceAccountName"] == "mine" and not of_kind(objects, "ServiceAccount")
    assert pod(render.render({"serviceAccount": {"create": False}}))["serviceAccountName"] == "default"


@pytest.mark.parametrize(
    "values, words",
    [
        ({"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}}, "exclude each other"),
        ({"serviceMonitor": {"enabled": True}, "service": {"enabled": False}}, "needs service.enabled"),
        ({"scope": "kata", "collectors": {"kata": {"enabled": False}}}, "measures nothing"),
        (CERTIFICATE | {"podMonitor": {"enabled": True}}, "podMonitor.tlsConfig must say"),
        (render.merged(CERTIFICATE, {"tls": {"certificate": {"enabled": True}}}), "exclude each other"),
        ({"tls": {"certificate": {"enabled": True}}}, "needs tls.enabled"),
        ({"tls": {"enabled": True, "certificate": {"enabled": True}}}, "issuerRef.name"),
        ({"tls": {"enabled": True, "clientAuth": {"enabled": True, "caSecret": "x"}}}, "needs tls.enabled with"),
        (render.merged(CERTIFICATE, {"tls": {"clientAuth": {"enabled": True}}}), "clientAuth.caSecret"),
        (CLIENTS | {"podMonitor": {"enabled": True, "tlsConfig": {"serverName": "x"}}}, "client certificate"),
        (TOKENS | {"podMonitor": {"enabled": True}}, "podMonitor.authorization"),
        ({"podMonitor": {"enabled": True, "honorLabels": False}, "kubeletCompat": {"enabled": True}}, "podMonitor.honorLabels"),
        (CERTIFICATE | {"existingWebConfigSecret": "x"}, "existingWebConfigSecret excludes"),
        ({"health": {"separateListener": "always", "port": 8090}}, "must differ"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_work_is_refused_in_words(values, words):
    message = refused(values)
    assert words in message, message


def test_basic_authentication_wants_the_monitors_password():
    users = {"basicAuth": {"users": {"me": "$2b$04$DTHxMmq0RfbvnL8y7EBFlOKFAPPTzCq2J1iVRUJXZb4qDV9yP3TgS"}}}
    assert "podMonitor.basicAuth" in refused(users | {"podMonitor": {"enabled": True}})
    basic = {"username": SECRET, "password": SECRET}
    objects = render.render(users | {"podMonitor": {"enabled": True, "basicAuth": basic}})
    assert one(objects, "PodMonitor")["spec"]["podMetricsEndpoints"][0]["basicAuth"] == basic
    web = yaml.safe_load(one(objects, "Secret")["stringData"]["web-config.yaml"])
    assert web == {"basic_auth_users": users["basicAuth"]["users"]}
    assert arguments(objects)["web-config"] == "/etc/kata-pulse/web/web-config.yaml"


def endpoint(values, kind="PodMonitor"):
    key = {"PodMonitor": "podMetricsEndpoints", "ServiceMonitor": "endpoints"}[kind]
    (found,) = one(render.render(values), kind)["spec"][key]
    return found


@pytest.mark.parametrize("kind", ["PodMonitor", "ServiceMonitor"])
def test_a_monitor_honours_labels_and_relabels_samples_not_targets(kind):
    key = kind[0].lower() + kind[1:]
    plain = endpoint({key: {"enabled": True}}, kind)
    assert plain["honorLabels"] is True and plain["scheme"] == "http"
    assert plain["relabelings"] == [{"sourceLabels": ["__meta_kubernetes_pod_node_name"], "targetLabel": "node"}]
    assert "metricRelabelings" not in plain
    mine = {"action": "drop", "regex": "x"}
    compatible = endpoint(
        {key: {"enabled": True, "relabelings": [mine], "metricRelabelings": [mine]}, "kubeletCompat": {"enabled": True, "job": "k3s-server"}}, kind
    )
    assert compatible["relabelings"] == plain["relabelings"] + [mine]
    to = lambda label, value: {"sourceLabels": ["__name__"], "regex": "container_.+", "targetLabel": label, "replacement": value}
    assert compatible["metricRelabelings"] == [to("job", "k3s-server"), to("metrics_path", "/metrics/cadvisor"), mine]


@pytest.mark.parametrize("kind", ["PodMonitor", "ServiceMonitor"])
def test_a_monitor_finds_the_pods_wherever_it_is(kind):
    key = kind[0].lower() + kind[1:]
    objects = render.render({key: {"enabled": True, "namespace": "observers", "labels": {"release": "kps"}}})
    monitor = one(objects, kind)
    assert monitor["metadata"]["namespace"] == "observers" and monitor["metadata"]["labels"]["release"] == "kps"
    assert monitor["spec"]["namespaceSelector"] == {"matchNames": ["monitoring"]}
    target = one(objects, "Service") if kind == "ServiceMonitor" else one(objects, "DaemonSet")["spec"]["template"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= target["metadata"]["labels"].items()
    assert target["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "kata-pulse"


def test_a_service_monitor_sends_prometheus_own_token():
    token = "/var/run/secrets/kubernetes.io/serviceaccount/token"
    assert endpoint(TOKENS | {"serviceMonitor": {"enabled": True}}, "ServiceMonitor")["bearerTokenFile"] == token
    given = endpoint(TOKENS | {"serviceMonitor": {"enabled": True, "authorization": {"credentials": SECRET}}}, "ServiceMonitor")
    assert "bearerTokenFile" not in given
    assert "bearerTokenFile" not in endpoint({"serviceMonitor": {"enabled": True}}, "ServiceMonitor")


def probes(objects):
    return {name: container(objects)[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}


def test_probes_are_plain_and_never_depend_on_the_runtime():
    found = probes(render.render())
    assert {name: get["path"] for name, get in found.items()} == {"startup": "/livez", "liveness": "/livez", "readiness": "/readyz"}
    assert {(get["port"], get["scheme"]) for get in found.values()} == {("metrics", "HTTP")}
    startup = container(render.render())["startupProbe"]
    assert (startup["failureThreshold"], startup["periodSeconds"]) == (30, 2)
    mine = {"tcpSocket": {"port": 1}}
    assert container(render.render({"livenessProbe": mine}))["livenessProbe"] == mine


def test_probes_follow_tls_and_move_where_client_certificates_are_required():
    objects = render.render({"tls": {"enabled": True}})
    assert {(get["port"], get["scheme"]) for get in probes(objects).values()} == {("metrics", "HTTPS")}
    assert "--tls-self-signed" in container(objects)["args"] and not of_kind(objects, "Secret")
    for values in (CLIENTS, CERTIFICATE | {"webConfig": {"tls_server_config": {"client_auth_type": "RequireAnyClientCert"}}}):
        objects = render.render(values)
        assert {(get["port"], get["scheme"]) for get in probes(objects).values()} == {("health", "HTTP")}
        assert arguments(objects)["health-listen-address"] == "0.0.0.0:8091"
        assert {"name": "health", "containerPort": 8091, "protocol": "TCP"} in container(objects)["ports"]
        assert "--tls-self-signed" not in container(objects)["args"]
    assert "health-listen-address" not in arguments(render.render(CERTIFICATE))
    assert "health-listen-address" not in arguments(render.render(CLIENTS | {"health": {"separateListener": "never"}}))


def test_client_certificates_are_asked_for_in_the_web_configuration():
    objects = render.render(CLIENTS)
    server = yaml.safe_load(one(objects, "Secret")["stringData"]["web-config.yaml"])["tls_server_config"]
    assert server["client_auth_type"] == "RequireAndVerifyClientCert"
    where = {mount["name"]: mount["mountPath"] for mount in container(objects)["volumeMounts"]}
    assert server["cert_file"] == where["tls"] + "/tls.crt" and server["key_file"] == where["tls"] + "/tls.key"
    assert server["client_ca_file"] == where["client-ca"] + "/ca.crt"
    volumes = {volume["name"]: volume for volume in pod(objects)["volumes"]}
    assert volumes["tls"]["secret"]["secretName"] == "cert" and volumes["client-ca"]["secret"]["secretName"] == "ca"


def test_a_certificate_of_cert_manager_is_the_one_that_is_served():
    values = {"tls": {"enabled": True, "certificate": {"enabled": True, "issuerRef": {"name": "ca", "kind": "ClusterIssuer"}, "dnsNames": ["{{ .Release.Name }}.example.org"]}}}
    objects = render.render(values)
    certificate = one(objects, "Certificate")["spec"]
    assert certificate["secretName"] in {volume.get("secret", {}).get("secretName") for volume in pod(objects)["volumes"]}
    assert certificate["dnsNames"] == ["kata-pulse", "kata-pulse.monitoring", "kata-pulse.monitoring.svc", "kata-pulse.example.org"]


def test_a_web_configuration_of_ones_own():
    objects = render.render({"existingWebConfigSecret": "mine", "tls": {"enabled": True}, "health": {"separateListener": "always"}})
    assert not of_kind(objects, "Secret") and "--tls-self-signed" not in container(objects)["args"]
    assert "mine" in {volume.get("secret", {}).get("secretName") for volume in pod(objects)["volumes"]}


def test_a_change_of_configuration_replaces_the_pods():
    annotations = lambda values: one(render.render(values), "DaemonSet")["spec"]["template"]["metadata"]["annotations"]
    assert annotations({})["checksum/config"] != annotations({"config": {"max-age-secs": 2}})["checksum/config"]
    assert annotations({})["checksum/config"] == annotations({"podMonitor": {"enabled": True}})["checksum/config"]
    assert annotations({})["kubectl.kubernetes.io/default-container"] == "kata-pulse"
    mine = {"existingConfigMap": "mine"}
    assert "checksum/config" not in annotations(mine) and not of_kind(render.render(mine), "ConfigMap")


def test_nodes_that_are_not_real_are_avoided_in_every_alternative():
    terms = lambda values: pod(render.render(values))["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    keys = lambda term: [expression["key"] for expression in term["matchExpressions"]]
    real = ["eks.amazonaws.com/compute-type", "type"]
    assert [keys(term) for term in terms({})] == [real]
    mine = [{"matchExpressions": [{"key": key, "operator": "Exists"}]} for key in ("a", "b")]
    given = nested("affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms", mine)
    assert [keys(term) for term in terms(given)] == [["a", *real], ["b", *real]]


def test_network_policy():
    policy = lambda values: one(render.render(render.merged({"networkPolicy": {"enabled": True}}, values)), "NetworkPolicy")["spec"]
    plain = policy({})
    assert plain["ingress"] == [{"ports": [{"protocol": "TCP", "port": 8090}]}] and plain["egress"] == []
    assert plain["policyTypes"] == ["Ingress", "Egress"]
    assert plain["podSelector"]["matchLabels"] == one(render.render(), "DaemonSet")["spec"]["selector"]["matchLabels"]
    peer = [{"podSelector": {"matchLabels": {"a": "b"}}}]
    assert policy({"networkPolicy": {"ingress": {"from": peer}}})["ingress"][0]["from"] == peer
    ports = [port["port"] for rule in policy(TOKENS)["egress"] for port in rule["ports"]]
    assert ports == [443, 6443, 53, 53]
    assert [rule["ports"][0]["port"] for rule in policy(CLIENTS)["ingress"]] == [8090, 8091]


def test_rules_and_dashboards_are_the_files():
    rules = {"prometheusRule": {"enabled": True}}
    groups = one(render.render(rules), "PrometheusRule")["spec"]["groups"]
    files = [yaml.safe_load((render.CHART / "files" / "rules" / f"{name}.yaml").read_text())["groups"] for name in ("alerts", "recording")]
    assert groups == files[0] + files[1] and groups
    alerts = [rule["alert"] for group in files[0] for rule in group["rules"]]
    fewer = one(render.render(render.merged(rules, nested("prometheusRule", "defaultRules", "disabled", {alerts[0]: True}))), "PrometheusRule")
    assert alerts[0] not in [rule.get("alert") for group in fewer["spec"]["groups"] for rule in group["rules"]]
    jobs = lambda values: re.findall(r'job=~?\\"[^"]*"', json.dumps(one(render.render(rules | values), "PrometheusRule")["spec"]))
    assert jobs({}) and all("kata-pulse" in job for job in jobs({}))
    assert [job.replace("kata-pulse", "other") for job in jobs({})] == jobs({"nameOverride": "other"})
    boards = of_kind(render.render({"dashboards": {"enabled": True, "folder": "Kata"}}), "ConfigMap")
    boards = [board for board in boards if board["metadata"]["labels"].get("grafana_dashboard") == "1"]
    found = {name: json.loads(text) for board in boards for name, text in board["data"].items()}
    assert found == {path.name: json.loads(path.read_text()) for path in (render.CHART / "files" / "dashboards").glob("*.json")}
    assert len(found) >= 2 and all(board["metadata"]["annotations"] == {"grafana_folder": "Kata"} for board in boards)


def test_openshift_allows_what_the_pod_asks_for_and_no_more():
    objects = render.render({"openshift": {"securityContextConstraints": {"enabled": True}}, "collectors": {"kata": {"processIo": True}}})
    constraints = one(objects, "SecurityContextConstraints")
    assert constraints["apiVersion"] == "security.openshift.io/v1"
    assert constraints["users"] == ["system:serviceaccount:monitoring:kata-pulse"]
    assert constraints["allowedCapabilities"] == ["SYS_PTRACE"] == container(objects)["securityContext"]["capabilities"]["add"]
    assert constraints["allowHostDirVolumePlugin"] is True
    for key in ("allowHostPID", "allowHostIPC", "allowHostNetwork", "allowHostPorts", "allowPrivilegedContainer", "allowPrivilegeEscalation"):
        assert constraints[key] is False, key
    kinds = {next(iter(volume.keys() - {"name"})) for volume in pod(objects)["volumes"]}
    assert kinds <= set(constraints["volumes"])


def test_vertical_pod_autoscaler_names_the_daemonset_and_its_container():
    objects = render.render({"verticalPodAutoscaler": {"enabled": True}})
    scaler = one(objects, "VerticalPodAutoscaler")
    assert scaler["apiVersion"] == "autoscaling.k8s.io/v1"
    assert scaler["spec"]["targetRef"] == {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": one(objects, "DaemonSet")["metadata"]["name"]}
    assert [policy["containerName"] for policy in scaler["spec"]["resourcePolicy"]["containerPolicies"]] == ["kata-pulse"]


def notes(values) -> str:
    # `template` prints no notes. An install that is only tried does; Helm 3 wants to see a cluster even for that.
    arguments = ["install", "kata-pulse", str(render.CHART), "--dry-run=client", "--namespace", "monitoring", "--values", "-"]
    return render.run("4", *arguments, stdin=json.dumps(values)).split("NOTES:")[1]


def test_notes_say_how_to_see_it_work_and_what_is_missing():
    plain = notes({})
    assert "port-forward daemonset/kata-pulse 8090:8090" in plain and "WARNING: nothing scrapes it" in plain
    both = notes({"podMonitor": {"enabled": True}, "kubeletCompat": {"enabled": True}})
    assert "WARNING" not in both and "cAdvisor=false" in both
    assert "curl -k https://" in notes({"tls": {"enabled": True}})
