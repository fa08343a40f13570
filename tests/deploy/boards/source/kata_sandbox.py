"""The board *Kata sandbox*: one pod from inside the guest, from the VMM and from the host."""

from .kata_node import POD, SANDBOX_UID
from .panels import Board, Query, graph, number

UID = SANDBOX_UID

S = 'cluster=~"$cluster",namespace="$namespace",pod="$pod"'
IN_CONTAINERS = f'{S},container!=""'

DECLARED_MEMORY = f"max(kube_pod_overhead_memory_bytes{{{S}}} > 0)"
HOST_CPU = f"sum(rate(kata_pulse_sandbox_host_cpu_seconds_total{{{S}}}[$__rate_interval]))"
CONTAINER_CPU = f"sum(rate(container_cpu_usage_seconds_total{{{IN_CONTAINERS}}}[$__rate_interval]))"
# Two sandboxes have the pod's name for a moment when it comes back; each has its own id.
GUEST_USED = f"sum(kata_pulse_guest_memory_total_bytes{{{S}}} - kata_pulse_guest_memory_available_bytes{{{S}}})"
GUEST_SIZE = f"sum(kata_pulse_guest_memory_total_bytes{{{S}}})"


def board() -> Board:
    it = Board(UID, "Kata sandbox", "One Kata pod inside and out: its containers as measured in the guest, the guest "
               "as a whole, what the node pays for it, and its virtual devices.")
    info = 'kata_pulse_sandbox_info{cluster=~"$cluster",runtime="kata"'
    it.choice("cluster", "Cluster", 'label_values(kata_pulse_sandbox_info{runtime="kata"}, cluster)', every=True)
    it.choice("namespace", "Namespace", f"label_values({info}}}, namespace)", every=False)
    it.choice("pod", "Pod", f'label_values({info},namespace="$namespace"}}, pod)', every=False)
    _summary(it)
    _containers(it)
    _guest(it)
    _host(it)
    _devices(it)
    _measurement(it)
    return it


def _summary(it: Board) -> None:
    it.row("At a glance")
    it.add(number("Runtime", "Runtime handler and hypervisor of the sandbox.", "none",
                  Query(f'max by (runtime_handler, hypervisor) (kata_pulse_sandbox_info{{{S},runtime="kata"}})',
                        "{{runtime_handler}} / {{hypervisor}}"), name=True), 6, 4)
    it.add(number("Measured", "Whether the sandbox could be measured.", "none",
                  Query(f"min(kata_pulse_sandbox_up{{{S}}})"),
                  words={"0": ("no", "red"), "1": ("yes", "green")}), 3, 4)
    it.add(number("vCPUs", "Virtual CPUs of the guest.", "none", Query(f"sum(kata_pulse_guest_vcpus{{{S}}})")), 3, 4)
    it.add(number("Guest size", "Memory of the guest, less what its kernel took at boot.", "bytes", Query(GUEST_SIZE)), 3, 4)
    it.add(number("Guest memory in use", "Memory that the guest could not give to new work. Near 100 % its "
                  "out-of-memory killer is near.", "percentunit", Query(f"{GUEST_USED} / {GUEST_SIZE}"), decimals=1,
                  steps=((None, "green"), (0.85, "orange"), (0.95, "red"))), 3, 4)
    it.add(number("Overhead / declared", "Memory overhead as a share of the RuntimeClass's overhead.podFixed.memory. "
                  "Needs kube-state-metrics.", "percentunit",
                  Query(f"sum(kata_pulse_sandbox_overhead_memory_bytes{{{S}}}) / {DECLARED_MEMORY}"), decimals=1,
                  steps=((None, "green"), (0.8, "orange"), (1, "red"))), 3, 4)
    it.add(number("Out-of-memory kills", "Processes killed for lack of memory anywhere in the guest, in the time shown.", "none",
                  Query(f"sum(increase(kata_pulse_guest_oom_kills_total{{{S}}}[$__range]))"), decimals=0,
                  steps=((None, "green"), (0.5, "red"))), 3, 4)


def _containers(it: Board) -> None:
    it.row("Containers, measured inside the guest")
    it.add(graph("CPU", "CPU that each container uses, and its limit where it has one.", "cores",
                 Query(f"sum by (container) (rate(container_cpu_usage_seconds_total{{{IN_CONTAINERS}}}[$__rate_interval]))",
                       "{{container}}"),
                 Query(f"max by (container) (container_spec_cpu_quota{{{IN_CONTAINERS}}} / "
                       f"container_spec_cpu_period{{{IN_CONTAINERS}}})", "{{container}} limit", dashed=True)), 8, 9)
    it.add(graph("Memory", "Working set of each container, and its limit where it has one.", "bytes",
                 Query(f"max by (container) (container_memory_working_set_bytes{{{IN_CONTAINERS}}})", "{{container}}"),
                 Query(f"max by (container) (container_spec_memory_limit_bytes{{{IN_CONTAINERS}}} > 0)",
                       "{{container}} limit", dashed=True)), 8, 9)

    def network(family: str) -> str:
        return f"sum by (interface) (rate({family}{{{S}}}[$__rate_interval]))"

    it.add(graph("Network", "Bytes that the pod received (above) and sent (below), by interface. A pod has one "
                 "network, whatever its containers.", "Bps",
                 Query(network("container_network_receive_bytes_total"), "{{interface}} received"),
                 Query(network("container_network_transmit_bytes_total"), "{{interface}} sent", below=True)), 8, 9)
    it.add(graph("Packets dropped and errors", "Packets of the pod's network that were dropped or faulty, by direction.", "pps",
                 Query(f"sum(rate(container_network_receive_packets_dropped_total{{{S}}}[$__rate_interval]))", "received, dropped"),
                 Query(f"sum(rate(container_network_transmit_packets_dropped_total{{{S}}}[$__rate_interval]))", "sent, dropped"),
                 Query(f"sum(rate(container_network_receive_errors_total{{{S}}}[$__rate_interval]))", "received, faulty"),
                 Query(f"sum(rate(container_network_transmit_errors_total{{{S}}}[$__rate_interval]))", "sent, faulty")), 8, 8)
    it.add(graph("CPU throttled", "Share of the periods of 100 ms in which a container wanted more CPU than its limit "
                 "gives. Guests with cgroup v2 do not tell it.", "percentunit",
                 Query("sum by (container) (rate(container_cpu_cfs_throttled_periods_total"
                       f"{{{IN_CONTAINERS}}}[$__rate_interval])) / sum by (container) "
                       f"(rate(container_cpu_cfs_periods_total{{{IN_CONTAINERS}}}[$__rate_interval]))", "{{container}}"),
                 ratio=True), 8, 8)
    it.add(graph("Out-of-memory kills by container", "When processes were killed for lack of memory: by container, "
                 "over all its restarts, and in the guest as a whole.", "none",
                 Query(f"sum by (container) (increase(kata_pulse_container_oom_kills_total{{{S}}}[$__rate_interval]))",
                       "{{container}}"),
                 Query(f"sum(increase(kata_pulse_guest_oom_kills_total{{{S}}}[$__rate_interval]))", "guest")), 8, 8)


def _guest(it: Board) -> None:
    it.row("Guest as a whole")
    it.add(graph("Guest CPU by mode", "Where the guest's CPU time goes, idle left out. steal is time in which the "
                 "guest wanted to run and the node did not let it.", "cores",
                 Query("sum by (mode) (rate(kata_pulse_guest_cpu_seconds_total"
                       f'{{{S},mode!~"idle|guest|guest_nice"}}[$__rate_interval]))', "{{mode}}"), stacked=True), 8, 9)
    it.add(graph("Guest memory", "Memory as the guest's kernel sees it. cached is given back inside the guest when it "
                 "is needed, but the node usually does not get it back.", "bytes",
                 Query(GUEST_USED, "in use"),
                 Query(f"sum(kata_pulse_guest_memory_cached_bytes{{{S}}})", "cached"),
                 Query(f"sum(kata_pulse_guest_memory_free_bytes{{{S}}})", "free"),
                 Query(GUEST_SIZE, "size", dashed=True)), 8, 9)
    it.add(graph("Guest load", "Tasks that run or wait in the guest, and its virtual CPUs.", "none",
                 Query(f"max(kata_pulse_guest_load1{{{S}}})", "1 minute"),
                 Query(f"max(kata_pulse_guest_load5{{{S}}})", "5 minutes"),
                 Query(f"max(kata_pulse_guest_load15{{{S}}})", "15 minutes"),
                 Query(f"max(kata_pulse_guest_vcpus{{{S}}})", "vCPUs", dashed=True)), 8, 9)
    it.add(graph("Guest disks", "Bytes that the guest reads (above) and writes (below), by disk, agent and kernel "
                 "included. A pod whose root is on virtio-fs may have none.", "Bps",
                 Query(f"sum by (device) (rate(kata_pulse_guest_disk_read_bytes_total{{{S}}}[$__rate_interval]))", "{{device}} read"),
                 Query(f"sum by (device) (rate(kata_pulse_guest_disk_written_bytes_total{{{S}}}[$__rate_interval]))",
                       "{{device}} written", below=True)), 12, 8)
    it.add(graph("Guest disk operations", "Reads (above) and writes (below) of the guest, by disk.", "iops",
                 Query(f"sum by (device) (rate(kata_pulse_guest_disk_reads_total{{{S}}}[$__rate_interval]))", "{{device}} reads"),
                 Query(f"sum by (device) (rate(kata_pulse_guest_disk_writes_total{{{S}}}[$__rate_interval]))", "{{device}} writes",
                       below=True)), 12, 8)


def _host(it: Board) -> None:
    it.row("What the node pays")
    it.add(graph("CPU: host, containers, isolation", "What the node spends on the sandbox, what its containers use "
                 "inside, and the difference: the cost of isolation. Two clocks count, so the difference may dip below zero.", "cores",
                 Query(HOST_CPU, "host"), Query(CONTAINER_CPU, "containers"),
                 Query(f"{HOST_CPU} - {CONTAINER_CPU}", "isolation"),
                 Query(f"max(kube_pod_overhead_cpu_cores{{{S}}} > 0)", "declared for isolation", dashed=True),
                 signed=True), 12, 9)
    it.add(graph("Memory: host, containers, isolation", "What the node spends on the sandbox, what its containers use "
                 "inside, the overhead, and what the RuntimeClass declares for it.", "bytes",
                 Query(f"sum(kata_pulse_sandbox_host_memory_bytes{{{S}}})", "host"),
                 Query(f"sum(container_memory_usage_bytes{{{IN_CONTAINERS}}})", "containers"),
                 Query(f"sum(kata_pulse_sandbox_overhead_memory_bytes{{{S}}})", "isolation"),
                 Query(DECLARED_MEMORY, "declared for isolation", dashed=True)), 12, 9)

    def component(expr: str) -> str:
        return f"sum by (component) ({expr})"

    process = "kata_pulse_sandbox_process"
    it.add(graph("CPU by component", "CPU of shim, hypervisor and virtiofsd on the node. The hypervisor's includes the "
                 "guest's.", "cores",
                 Query(component(f"rate({process}_cpu_seconds_total{{{S}}}[$__rate_interval])"), "{{component}}"),
                 stacked=True), 8, 8)
    it.add(graph("Resident memory by component", "Resident memory of shim, hypervisor and virtiofsd. Guest memory that "
                 "is shared shows in hypervisor and virtiofsd alike, so the lines do not add up.", "bytes",
                 Query(component(f"{process}_resident_memory_bytes{{{S}}}"), "{{component}}")), 8, 8)
    it.add(graph("Storage I/O by component", "Bytes that the processes fetched from (above) and sent to (below) "
                 "storage. Needs the right to trace processes.", "Bps",
                 Query(component(f"rate({process}_read_bytes_total{{{S}}}[$__rate_interval])"), "{{component}} read"),
                 Query(component(f"rate({process}_written_bytes_total{{{S}}}[$__rate_interval])"), "{{component}} written",
                       below=True)), 8, 8)
    it.add(graph("Threads by component", "Threads of shim, hypervisor and virtiofsd.", "none",
                 Query(component(f"{process}_threads{{{S}}}"), "{{component}}")), 12, 7)
    it.add(graph("Open descriptors by component", "Open file descriptors of shim, hypervisor and virtiofsd; a line "
                 "that only rises is a leak.", "none",
                 Query(component(f"{process}_open_fds{{{S}}}"), "{{component}}")), 12, 7)


def _devices(it: Board) -> None:
    it.row("Virtual devices, counted by the VMM (Cloud Hypervisor)")

    def device(family: str) -> str:
        return f"sum by (device) (rate(kata_pulse_vmm_{family}{{{S}}}[$__rate_interval]))"

    for title, unit, what, above, below in (
        ("Block devices", "Bps", "Bytes read (above) and written (below)", "block_read_bytes_total", "block_written_bytes_total"),
        ("Block operations", "iops", "Reads (above) and writes (below)", "block_reads_total", "block_writes_total"),
        ("Network devices", "Bps", "Bytes received (above) and sent (below)", "net_receive_bytes_total", "net_transmit_bytes_total"),
        ("Network frames", "pps", "Frames received (above) and sent (below)", "net_receive_frames_total", "net_transmit_frames_total"),
    ):
        words = ("in", "out") if "Network" in title else ("read", "written")
        it.add(graph(title, f"{what} by virtual device, whatever the guest claims.", unit,
                     Query(device(above), f"{{{{device}}}} {words[0]}"),
                     Query(device(below), f"{{{{device}}}} {words[1]}", below=True)), 6, 8)


def _measurement(it: Board) -> None:
    it.row("Measurement")
    it.add(graph("Time to measure", "How long asking the sandbox took in the last collection.", "s",
                 Query(f"max(kata_pulse_sandbox_scrape_duration_seconds{{{S}}})", "duration")), 12, 7)
    it.add(graph("Sources not asked", "Sources of the sandbox that were left out, by reason. agent_answers is the "
                 "normal case: a better source had told it already.", "none",
                 Query(f"sum by (reason) (kata_pulse_sandbox_scrape_skipped{{{S}}})", "{{reason}}"), stacked=True), 12, 7)
