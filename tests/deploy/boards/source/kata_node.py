"""The board *Kata node*: what the sandboxes of one node, or of all nodes, are, cost and do."""

from .panels import Board, Column, Query, bars, graph, listing, number

UID = "kata-pulse-node"
SANDBOX_UID = "kata-pulse-sandbox"

# Which agents the board is about. Labels that no series has match `.*`, so it works without `cluster` and `node`.
AGENTS = 'cluster=~"$cluster",node=~"$node",instance=~"$instance"'
POD = "cluster, namespace, pod"
SANDBOX = f"max by (cluster, sandbox_id) (kata_pulse_sandbox_info{{{AGENTS},runtime=\"kata\"}})"
# One 1 for every Kata pod: keeps the rows of Kata pods of what every pod has.
KATA_POD = f'max by ({POD}) (kata_pulse_sandbox_info{{{AGENTS},runtime="kata"}})'

# What RuntimeClasses declare comes from kube-state-metrics, which knows no node.
DECLARED_MEMORY = f'max by ({POD}) (kube_pod_overhead_memory_bytes{{cluster=~"$cluster"}} > 0)'
DECLARED_CPU = f'max by ({POD}) (kube_pod_overhead_cpu_cores{{cluster=~"$cluster"}} > 0)'

OVERHEAD_MEMORY = f"sum by ({POD}) (kata_pulse_sandbox_overhead_memory_bytes{{{AGENTS}}})"
HOST_CPU = f"sum by ({POD}) (rate(kata_pulse_sandbox_host_cpu_seconds_total{{{AGENTS}}}[$__rate_interval]))"
CONTAINER_CPU = f'sum by ({POD}) (rate(container_cpu_usage_seconds_total{{{AGENTS},container!=""}}[$__rate_interval]))'
OVERHEAD_CPU = f"({HOST_CPU} - on ({POD}) {CONTAINER_CPU})"

GUEST_USED = f"(kata_pulse_guest_memory_total_bytes{{{AGENTS}}} - kata_pulse_guest_memory_available_bytes{{{AGENTS}}})"
GUEST_FULL = f"{GUEST_USED} / kata_pulse_guest_memory_total_bytes{{{AGENTS}}}"
CONTAINER_MEMORY = f'sum by ({POD}) (container_memory_working_set_bytes{{{AGENTS},container!=""}}) * on ({POD}) {KATA_POD}'

OF_POD = "{{namespace}}/{{pod}}"
GOOD_BELOW = ((None, "green"), (0.8, "orange"), (1, "red"))


def board() -> Board:
    it = Board(UID, "Kata node", "The Kata sandboxes of a node or of all nodes: how many, how well measured, what "
               "their isolation costs against what is declared for it, and what passes their virtual devices.")
    it.choice("cluster", "Cluster", "label_values(kata_pulse_build_info, cluster)", every=True)
    it.choice("node", "Node", 'label_values(kata_pulse_build_info{cluster=~"$cluster"}, node)', every=True)
    it.choice("instance", "Agent", 'label_values(kata_pulse_build_info{cluster=~"$cluster",node=~"$node"}, instance)',
              every=True)
    _sandboxes(it)
    _health(it)
    _isolation(it)
    _memory(it)
    _devices(it)
    return it


def _sandboxes(it: Board) -> None:
    it.row("Sandboxes")
    it.add(number("Kata sandboxes", "Pod sandboxes that run in a virtual machine and are ready.", "none",
                  Query(f'sum(kata_pulse_sandboxes{{{AGENTS},runtime="kata"}})')), 4, 4)
    it.add(number("runc sandboxes", "Pod sandboxes that run as plain processes and are ready.", "none",
                  Query(f'sum(kata_pulse_sandboxes{{{AGENTS},runtime="runc"}})')), 4, 4)
    it.add(number("Not measured", "Ready sandboxes that could not be measured: their guest hangs, is out of reach, or "
                  "did not tell of every container.", "none",
                  Query(f"sum(kata_pulse_sandbox_up{{{AGENTS}}} == bool 0)"),
                  steps=((None, "green"), (1, "red"))), 4, 4)
    it.add(number("Runtime", "Whether the last call to the container runtime succeeded, on every agent shown.", "none",
                  Query(f"min(kata_pulse_cri_up{{{AGENTS}}})"),
                  words={"0": ("unreachable", "red"), "1": ("answers", "green")}), 4, 4)
    it.add(number("Isolation memory", "Memory that the node spends on Kata sandboxes beyond what their containers use.",
                  "bytes", Query(f"sum(kata_pulse_sandbox_overhead_memory_bytes{{{AGENTS}}})")), 4, 4)
    it.add(number("Isolation share of memory", "The same as a share of the memory of the nodes shown.", "percentunit",
                  Query(f"sum(kata_pulse_sandbox_overhead_memory_bytes{{{AGENTS}}}) / sum(machine_memory_bytes{{{AGENTS}}})"),
                  decimals=1), 4, 4)
    it.add(graph("Sandboxes by hypervisor", "Ready pod sandboxes by runtime and hypervisor. Sandboxes of a hypervisor "
                 "that nothing tells are counted without a name.", "none",
                 Query(f"sum by (runtime, hypervisor) (kata_pulse_sandboxes{{{AGENTS}}})", "{{runtime}} {{hypervisor}}"),
                 stacked=True), 6, 9)
    of_sandbox = f"* on (cluster, sandbox_id) {SANDBOX}"
    to_sandbox = (f"/d/{SANDBOX_UID}?${{datasource:queryparam}}&${{cluster:queryparam}}"
                  "&var-namespace=${__data.fields.Namespace}&var-pod=${__data.fields.Pod}&${__url_time_range}")
    info = "namespace, pod, node, instance, runtime_handler, hypervisor, sandbox_id"
    it.add(listing(
        "Every Kata sandbox", "Whether it is measured, what it costs the node, and what its RuntimeClass "
        "declares for the machine. Empty declared columns: no kube-state-metrics, or a RuntimeClass without overhead.",
        "sandbox_id",
        [
            Column("namespace", "Namespace"),
            Column("pod", "Pod", url=to_sandbox),
            Column("node", "Node"),
            Column("instance", "Agent"),
            Column("runtime_handler", "Runtime handler"),
            Column("hypervisor", "Hypervisor"),
            Column("Value #B", "Measured", words={"0": ("no", "red"), "1": ("yes", "green")}),
            Column("Value #C", "Host memory", "bytes"),
            Column("Value #D", "Overhead", "bytes"),
            Column("Value #E", "Declared overhead", "bytes"),
            Column("Value #F", "Guest memory used", "percentunit"),
        ],
        Query(f'max by ({info}) (kata_pulse_sandbox_info{{{AGENTS},runtime="kata"}})'),
        Query(f"max by (sandbox_id) (kata_pulse_sandbox_up{{{AGENTS}}} {of_sandbox})"),
        Query(f"max by (sandbox_id) (kata_pulse_sandbox_host_memory_bytes{{{AGENTS}}})"),
        Query(f"max by (sandbox_id) (kata_pulse_sandbox_overhead_memory_bytes{{{AGENTS}}})"),
        Query(f'max by (sandbox_id) (kata_pulse_sandbox_info{{{AGENTS},runtime="kata"}} '
              f"* on ({POD}) group_left {DECLARED_MEMORY})"),
        Query(f"max by (sandbox_id) ({GUEST_FULL})"),
    ), 18, 9)


def _health(it: Board) -> None:
    it.row("Health of the measurement")
    it.add(graph("Time to measure a sandbox", "How long asking a sandbox took in the last collection: the slowest, the "
                 "95th percentile and the median. A sandbox that hangs costs its own deadline and delays no other.", "s",
                 Query(f"max(kata_pulse_sandbox_scrape_duration_seconds{{{AGENTS}}})", "slowest"),
                 Query(f"quantile(0.95, kata_pulse_sandbox_scrape_duration_seconds{{{AGENTS}}})", "95th percentile"),
                 Query(f"quantile(0.5, kata_pulse_sandbox_scrape_duration_seconds{{{AGENTS}}})", "median")), 8, 8)
    failed = f"sum by (reason) (rate(kata_pulse_sandbox_scrape_failures_total{{{AGENTS}}}[$__rate_interval]))"
    tried = f"sum(rate(kata_pulse_sandbox_scrapes_total{{{AGENTS}}}[$__rate_interval]))"
    it.add(graph("Failed measurements", "Share of the attempts to measure a Kata sandbox that failed, by reason. One "
                 "sandbox of ten that never answers is a steady 10 %.", "percentunit",
                 Query(f"{failed} / ignoring (reason) group_left {tried}", "{{reason}}"), stacked=True), 8, 8)
    it.add(graph("Sources not asked", "Sources of sandboxes that were left out, by reason. agent_answers is the normal "
                 "case: a better source had told it already.", "none",
                 Query(f"sum by (reason) (kata_pulse_sandbox_scrape_skipped{{{AGENTS}}})", "{{reason}}"), stacked=True), 8, 8)
    it.add(graph("Collectors", "Share of the agents shown on which a collector read everything that it should.", "percentunit",
                 Query(f"avg by (collector) (kata_pulse_collector_success{{{AGENTS}}})", "{{collector}}"), ratio=True), 8, 8)
    it.add(graph("Time of a collection", "How long each collector took in the last collection, on the slowest agent shown.", "s",
                 Query(f"max by (collector) (kata_pulse_collector_duration_seconds{{{AGENTS}}})", "{{collector}}")), 8, 8)
    latency = f"sum by (le, method) (rate(kata_pulse_cri_request_duration_seconds_bucket{{{AGENTS}}}[$__rate_interval]))"
    it.add(graph("Container runtime", "95th percentile of how long the container runtime took to answer, by method.", "s",
                 Query(f"histogram_quantile(0.95, {latency})", "{{method}}")), 8, 8)
    own = f"* on (cluster, job, instance) group_left max by (cluster, job, instance) (kata_pulse_build_info{{{AGENTS}}})"
    it.add(graph("CPU of the agent", "CPU time that kata-pulse itself takes, by agent.", "cores",
                 Query(f"rate(process_cpu_seconds_total{{{AGENTS}}}[$__rate_interval]) {own}", "{{node}} {{instance}}")), 8, 8)
    it.add(graph("Memory of the agent", "Resident memory of kata-pulse itself, by agent.", "bytes",
                 Query(f"process_resident_memory_bytes{{{AGENTS}}} {own}", "{{node}} {{instance}}")), 8, 8)
    it.add(graph("Requests to the agent", "HTTP requests answered, by path and status code.", "reqps",
                 Query(f"sum by (handler, code) (rate(kata_pulse_http_requests_total{{{AGENTS}}}[$__rate_interval]))",
                       "{{handler}} {{code}}")), 8, 8)


def _isolation(it: Board) -> None:
    it.row("Cost of isolation")
    it.add(bars("Memory overhead against RuntimeClass", "Measured memory overhead of the twenty dearest pods as a "
                "share of overhead.podFixed.memory, which the scheduler plans with. Above 100 % the node promises "
                "memory that it has not got. Needs kube-state-metrics.", "percentunit",
                Query(f"topk(20, {OVERHEAD_MEMORY} / on ({POD}) {DECLARED_MEMORY})", OF_POD), steps=GOOD_BELOW), 8, 9)
    it.add(graph("Memory: measured and declared", "What isolation costs in memory, beside what the RuntimeClasses of "
                 "the same pods declare. Pods without a declaration count on the measured side only.", "bytes",
                 Query(f"sum({OVERHEAD_MEMORY})", "measured"),
                 Query(f"sum({DECLARED_MEMORY} and on ({POD}) {KATA_POD})", "declared", dashed=True)), 8, 9)
    it.add(graph("CPU: measured and declared", "What isolation costs in CPU: what the node spends on the sandboxes "
                 "less what their containers use. The two are counted by two clocks, so it may dip below zero for a moment.", "cores",
                 Query(f"sum({OVERHEAD_CPU})", "measured"),
                 Query(f"sum({DECLARED_CPU} and on ({POD}) {KATA_POD})", "declared", dashed=True),
                 signed=True), 8, 9)
    by_handler = (f"kata_pulse_sandbox_overhead_memory_bytes{{{AGENTS}}} * on (cluster, sandbox_id) group_left (runtime_handler) "
                  f'max by (cluster, sandbox_id, runtime_handler) (kata_pulse_sandbox_info{{{AGENTS},runtime="kata"}})')
    it.add(graph("Memory overhead by runtime handler", "Overhead of a sandbox, for choosing podFixed.memory: the 95th "
                 "percentile and the median of each runtime handler.", "bytes",
                 Query(f"quantile by (runtime_handler) (0.95, {by_handler})", "{{runtime_handler}} 95th percentile"),
                 Query(f"quantile by (runtime_handler) (0.5, {by_handler})", "{{runtime_handler}} median")), 8, 9)
    it.add(graph("CPU by component", "CPU that shims, hypervisors and virtiofsds take on the node. The hypervisor's "
                 "includes the guests'.", "cores",
                 Query(f"sum by (component) (rate(kata_pulse_sandbox_process_cpu_seconds_total{{{AGENTS}}}[$__rate_interval]))",
                       "{{component}}"), stacked=True), 8, 9)
    it.add(graph("Resident memory by component", "Resident memory of shims, hypervisors and virtiofsds. Guest memory "
                 "that is shared shows in hypervisor and virtiofsd alike, so the lines do not add up.", "bytes",
                 Query(f"sum by (component) (kata_pulse_sandbox_process_resident_memory_bytes{{{AGENTS}}})",
                       "{{component}}")), 8, 9)


def _memory(it: Board) -> None:
    it.row("Guest and host memory")
    it.add(graph("Guest memory and host memory", "The same machines from inside and outside. Host memory rises to a "
                 "guest's high-water mark and seldom falls; size is what the guests could take.", "bytes",
                 Query(f"sum({CONTAINER_MEMORY})", "containers' working set"),
                 Query(f"sum({GUEST_USED})", "guests in use"),
                 Query(f"sum(kata_pulse_sandbox_host_memory_bytes{{{AGENTS}}})", "host"),
                 Query(f"sum(kata_pulse_guest_memory_total_bytes{{{AGENTS}}})", "size of the guests", dashed=True)), 8, 9)
    it.add(bars("Fullest guests", "Memory in use inside the guest as a share of its size, the twenty fullest. Close to "
                "100 % the guest's out-of-memory killer is near, however far the containers are from their limits.", "percentunit",
                Query(f"topk(20, max by ({POD}) ({GUEST_FULL}))", OF_POD),
                steps=((None, "green"), (0.85, "orange"), (0.95, "red")), top=1), 8, 9)
    it.add(bars("Dearest sandboxes", "Memory that the node spends on a sandbox, guest included, the twenty dearest.", "bytes",
                Query(f"topk(20, sum by ({POD}) (kata_pulse_sandbox_host_memory_bytes{{{AGENTS}}}))", OF_POD),
                steps=((None, "blue"),)), 8, 9)


def _devices(it: Board) -> None:
    it.row("I/O of the machines")

    def total(family: str) -> str:
        return f"sum(rate({family}{{{AGENTS}}}[$__rate_interval]))"

    it.add(graph("Block devices", "Bytes that guests read (above) and wrote (below) on virtual block devices, counted "
                 "by the VMM. Only Cloud Hypervisor tells.", "Bps",
                 Query(total("kata_pulse_vmm_block_read_bytes_total"), "read"),
                 Query(total("kata_pulse_vmm_block_written_bytes_total"), "written", below=True)), 8, 8)
    it.add(graph("Block operations", "Reads (above) and writes (below) of virtual block devices, counted by the VMM.", "iops",
                 Query(total("kata_pulse_vmm_block_reads_total"), "reads"),
                 Query(total("kata_pulse_vmm_block_writes_total"), "writes", below=True)), 8, 8)
    it.add(graph("Network devices", "Bytes that guests received (above) and sent (below) on virtual network devices, "
                 "counted by the VMM.", "Bps",
                 Query(total("kata_pulse_vmm_net_receive_bytes_total"), "received"),
                 Query(total("kata_pulse_vmm_net_transmit_bytes_total"), "sent", below=True)), 8, 8)
    it.add(graph("Busiest machines: block", "Bytes read and written on block devices together, the ten busiest pods.", "Bps",
                 Query(f"topk(10, sum by ({POD}) (rate(kata_pulse_vmm_block_read_bytes_total{{{AGENTS}}}[$__rate_interval])) "
                       f"+ on ({POD}) sum by ({POD}) "
                       f"(rate(kata_pulse_vmm_block_written_bytes_total{{{AGENTS}}}[$__rate_interval])))", OF_POD)), 8, 8)
    it.add(graph("Storage I/O by component", "Bytes that the sandboxes' processes fetched from (above) and sent to "
                 "(below) storage: with virtio-fs, file I/O of a pod is virtiofsd's. Needs the right to trace processes.", "Bps",
                 Query("sum by (component) (rate(kata_pulse_sandbox_process_read_bytes_total"
                       f"{{{AGENTS}}}[$__rate_interval]))", "{{component}} read"),
                 Query("sum by (component) (rate(kata_pulse_sandbox_process_written_bytes_total"
                       f"{{{AGENTS}}}[$__rate_interval]))", "{{component}} written", below=True)), 8, 8)
    it.add(graph("Machines by state", "What the virtual machines are doing, as their VMM says it. Only Cloud "
                 "Hypervisor tells.", "none",
                 Query(f"sum by (state) (kata_pulse_vmm_state{{{AGENTS}}})", "{{state}}"), stacked=True), 8, 8)
