use super::*;
use crate::discover::cgroup_path::classify;
use crate::discover::runtime_view::SandboxDetail;
use crate::model::inventory::KataRuntime;
use crate::model::units::Seconds;

fn id(letter: char) -> String {
    letter.to_string().repeat(64)
}

/// The cgroups of a tree, from the paths of its leaves.
fn tree(leaves: &[String]) -> Vec<Found> {
    let mut found = vec![Found { path: "/".into(), class: Class::Other, pod: None }];
    for leaf in leaves {
        let (mut path, mut class, mut pod) = (String::new(), Class::Other, None);
        for name in leaf.split('/').filter(|name| !name.is_empty()) {
            let inside = matches!(class, Class::Pod(_)).then(|| CgroupPath::from(path.as_str()));
            path = format!("{path}/{name}");
            class = classify(&class, name);
            pod = inside;
            let entry = Found { path: path.as_str().into(), class: class.clone(), pod: pod.clone() };
            if class != Class::Other && !found.contains(&entry) {
                found.push(entry);
            }
        }
        assert!(pod.is_some() || matches!(class, Class::Stray(_) | Class::Pod(_)), "{leaf}");
    }
    found
}

fn sandbox(name: &str, uid: &str, containers: &[(&str, char)]) -> KnownSandbox {
    KnownSandbox {
        name: name.into(),
        namespace: "shop".into(),
        uid: uid.into(),
        config_hash: None,
        runtime_handler: String::new(),
        state: SandboxState::Ready,
        attempt: 0,
        created_at: Some(Seconds::from_secs(100)),
        detail: Some(SandboxDetail { image: "pause:3".into(), ..SandboxDetail::default() }),
        containers: containers
            .iter()
            .map(|(name, letter)| {
                KnownContainer::running(Container {
                    id: id(*letter).into(),
                    name: (*name).to_owned(),
                    image: "busybox:1".into(),
                    state: ContainerState::Running,
                    attempt: 2,
                    started_at: Some(Seconds::from_secs(200)),
                    reason: String::new(),
                })
            })
            .collect(),
    }
}

fn view(runtime: &str, sandboxes: Vec<(char, KnownSandbox)>) -> RuntimeView {
    RuntimeView {
        version: Some(RuntimeVersion { name: runtime.into(), version: "1".into() }),
        sandboxes: sandboxes.into_iter().map(|(letter, sandbox)| (SandboxId::from(id(letter)), sandbox)).collect(),
    }
}

fn assemble(view: &RuntimeView, found: &[Found], kata: &[char]) -> Assembled {
    let directory = |letter: &char| {
        let path = std::path::PathBuf::from(format!("/run/kata/{}", id(*letter)));
        (id(*letter), KataDirectory { runtime: KataRuntime::Rs, path })
    };
    let kata = kata.iter().map(directory).collect();
    let evidence = Evidence { view, runtime_answers: view.version.is_some(), found, kata: &kata };
    Assembler::new(Scope::All).assemble(&evidence, &Inventory::default(), Instant::now())
}

fn row<'a>(assembled: &'a Assembled, path: &str) -> &'a Subject {
    let mut rows = assembled.inventory.subjects.iter().filter(|subject| subject.key() == path);
    let row = rows.next().unwrap_or_else(|| panic!("no row {path}: {:#?}", assembled.inventory.subjects));
    assert!(rows.next().is_none(), "{path} stands twice");
    row
}

const POD: &str = "/kubepods/burstable/podu1";

#[test]
fn rows_carry_the_runtimes_names() {
    let view = view("containerd", vec![('a', sandbox("web", "u1", &[("app", 'b')]))]);
    let found = tree(&[format!("{POD}/{}", id('a')), format!("{POD}/{}", id('b'))]);
    let all = assemble(&view, &found, &[]);
    let app = row(&all, &format!("{POD}/{}", id('b')));
    assert_eq!(app.kind, Kind::Container);
    assert_eq!(app.labels.values(), ["app", app.key(), "busybox:1", &id('b'), "shop", "web"]);
    assert_eq!((app.started_at, &app.network), (Some(Seconds::from_secs(200)), &Network::None));
    let pause = row(&all, &format!("{POD}/{}", id('a')));
    assert_eq!(pause.labels.values(), ["", pause.key(), "pause:3", &id('a'), "shop", "web"]);
    let Network::Pod(cgroups) = &pause.network else { panic!("the sandbox's row carries the network") };
    assert_eq!(cgroups[0].as_str(), pause.key(), "the pause process is asked first");
    let pod = row(&all, POD);
    assert_eq!(pod.labels.values(), ["", POD, "", "", "shop", "web"]);
    assert_eq!(row(&all, "/").network, Network::Node);
    assert_eq!(row(&all, "/kubepods/burstable").kind, Kind::Group);
    assert!(!all.held_back);
}

#[test]
fn host_network_pods_carry_no_network() {
    let mut web = sandbox("web", "u1", &[]);
    web.detail = Some(SandboxDetail { host_network: true, ..SandboxDetail::default() });
    let all = assemble(&view("containerd", vec![('a', web)]), &tree(&[format!("{POD}/{}", id('a'))]), &[]);
    assert_eq!(row(&all, &format!("{POD}/{}", id('a'))).network, Network::None);
}

#[test]
fn what_lies_below_a_kata_pod_is_never_a_row() {
    let paths = [format!("{POD}/{}", id('a')), format!("{POD}/{}", id('b'))];
    let overhead = format!("/kata_overhead/{}", id('a'));
    let found = tree(&[paths[0].clone(), paths[1].clone(), overhead]);
    let mut by_handler = sandbox("web", "u1", &[("app", 'b')]);
    by_handler.runtime_handler = "kata-clh".into();
    let mut by_type = sandbox("web", "u1", &[("app", 'b')]);
    by_type.detail = Some(SandboxDetail { runtime_type: "io.containerd.kata.v2".into(), ..SandboxDetail::default() });
    for (known, directories) in [(by_handler, &[][..]), (by_type, &[]), (sandbox("web", "u1", &[("app", 'b')]), &['a'])]
    {
        let all = assemble(&view("containerd", vec![('a', known)]), &found, directories);
        let (guests, hosts): (Vec<_>, Vec<_>) = all.inventory.subjects.iter().partition(|subject| subject.in_guest);
        let keys: Vec<&str> = hosts.iter().map(|subject| subject.key()).collect();
        assert_eq!(keys, ["/", "/kubepods", "/kubepods/burstable", POD]);
        assert!(guests.iter().all(|subject| subject.cgroup.is_none() && subject.network == Network::None));
        let names: Vec<_> = guests.iter().map(|subject| (subject.key(), subject.labels.container.as_str())).collect();
        assert_eq!(names, [(paths[0].as_str(), ""), (paths[1].as_str(), "app")], "as runc would have named them");
        assert_eq!(all.inventory.sandboxes[0].runtime, Runtime::Kata);
    }
    let nameless = assemble(&RuntimeView::default(), &found, &['a']);
    assert_eq!(nameless.inventory.subjects.len(), 4, "also without a runtime to ask");
    let marked = tree(&[format!("{POD}/kata_{}", id('a')), paths[1].clone()]);
    let by_name = assemble(&RuntimeView::default(), &marked, &[]);
    assert_eq!(by_name.inventory.subjects.len(), 4, "the name of the cgroup tells");
}

#[test]
fn a_sandbox_without_a_cgroup_gets_a_row_for_its_network() {
    let pod = "/kubepods.slice/kubepods-podu1.slice";
    let found = tree(&[format!("{pod}/crio-{}.scope", id('b'))]);
    let all = assemble(&view("cri-o", vec![('a', sandbox("web", "u1", &[("app", 'b')]))]), &found, &[]);
    let infra = row(&all, &format!("{pod}/crio-{}.scope", id('a')));
    assert_eq!((infra.kind, &infra.cgroup), (Kind::Sandbox, &None));
    assert_eq!(infra.labels.name, "k8s_POD_web_shop_u1_0");
    assert_eq!(infra.network, Network::Pod(vec![format!("{pod}/crio-{}.scope", id('b')).into()]));
    assert_eq!(row(&all, &format!("{pod}/crio-{}.scope", id('b'))).labels.name, "k8s_app_web_shop_u1_2");
}

#[test]
fn static_pods_are_found_by_their_config_hash() {
    let mut apiserver = sandbox("kube-apiserver", "c0ffee00-0000-4000-8000-000000000000", &[]);
    apiserver.config_hash = Some("07bd11a0a13dfe5450a17a39eb8e32d2".into());
    let pod = "/kubepods/burstable/pod07bd11a0a13dfe5450a17a39eb8e32d2";
    let all = assemble(&view("containerd", vec![('a', apiserver)]), &tree(&[pod.to_owned()]), &[]);
    assert_eq!(row(&all, pod).labels.pod, "kube-apiserver");
}

#[test]
fn the_ready_sandbox_speaks_for_its_pod() {
    let mut old = sandbox("old", "u1", &[]);
    old.state = SandboxState::NotReady;
    old.created_at = Some(Seconds::from_secs(900));
    let view = view("containerd", vec![('a', old), ('b', sandbox("new", "u1", &[]))]);
    let all = assemble(&view, &tree(&[POD.to_owned()]), &[]);
    assert_eq!(row(&all, POD).labels.pod, "new");
    assert_eq!(all.inventory.sandboxes.len(), 2);
}

#[test]
fn unknown_cgroups_wait_for_an_answering_runtime_and_for_no_other() {
    let found = tree(&[format!("{POD}/{}", id('a'))]);
    let known = view("containerd", vec![]);
    let kata = HashMap::new();
    let mut assembler = Assembler::new(Scope::All);
    let mut at = |answers, seconds| {
        let evidence = Evidence { view: &known, runtime_answers: answers, found: &found, kata: &kata };
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        let now = *START.get_or_init(Instant::now) + Duration::from_secs(seconds);
        let all = assembler.assemble(&evidence, &Inventory::default(), now);
        (all.inventory.subjects.len(), all.held_back)
    };
    assert_eq!(at(true, 0), (3, true), "root and groups only");
    assert_eq!(at(false, 1), (5, false), "a silent runtime will not name it");
    assert_eq!(at(true, 9), (3, true));
    assert_eq!(at(true, 10), (5, false), "the runtime had its time");
    let all = assemble(&RuntimeView::default(), &found, &[]);
    assert!(matches!(row(&all, POD).network, Network::Pod(_)), "on the pod's row where no sandbox is known");
    assert_eq!(row(&all, &format!("{POD}/{}", id('a'))).labels.pod, "");
}

#[test]
fn strays_need_the_runtimes_word() {
    let found = tree(&[format!("/k8s.io/{}", id('b')), format!("/docker/{}", id('c'))]);
    let all = assemble(&view("containerd", vec![('a', sandbox("web", "u1", &[("app", 'b')]))]), &found, &[]);
    assert_eq!(row(&all, &format!("/k8s.io/{}", id('b'))).labels.container, "app");
    assert!(!all.inventory.subjects.iter().any(|subject| subject.key().starts_with("/docker")));
}

#[test]
fn unchanged_subjects_are_taken_over() {
    let view = view("containerd", vec![('a', sandbox("web", "u1", &[("app", 'b')]))]);
    let found = tree(&[format!("{POD}/{}", id('b'))]);
    let kata = HashMap::new();
    let evidence = Evidence { view: &view, runtime_answers: true, found: &found, kata: &kata };
    let mut assembler = Assembler::new(Scope::All);
    let first = assembler.assemble(&evidence, &Inventory::default(), Instant::now()).inventory;
    let second = assembler.assemble(&evidence, &first, Instant::now()).inventory;
    assert!(same(&first, &second));
    assert!(first.subjects.iter().zip(&second.subjects).all(|(one, other)| Arc::ptr_eq(one, other)));
}
