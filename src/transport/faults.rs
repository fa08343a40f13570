//! Everything a peer can do wrong on the wire, each against a real Unix socket.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use protobuf::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use ttrpc::Code;

use super::fake::{self, Peer};
use super::{Address, Client, Method, Step, TransportError};
use crate::protos::agent::{CheckRequest, VersionCheckResponse};

const MAX_REPLY: usize = 4096;
const VERSION: Method<CheckRequest, VersionCheckResponse> = Method::new("grpc.Health", "Version", MAX_REPLY);

/// Short enough for a test that must run into it.
const SHORT: Duration = Duration::from_millis(300);
/// Long enough that a test which runs into it has failed.
const LONG: Duration = Duration::from_secs(20);

fn version(text: &str) -> Vec<u8> {
    VersionCheckResponse { agent_version: text.into(), ..Default::default() }.write_to_bytes().unwrap()
}

async fn ask(client: &mut Client) -> Result<String, TransportError> {
    client.call(&VERSION, &CheckRequest::new()).await.map(|reply| reply.agent_version)
}

/// Connects to a peer that reads one request and then does `act`, and makes the call.
async fn ask_one_who<F>(
    deadline: Duration,
    act: impl Fn(UnixStream, u32) -> F + Clone + Send + Sync + 'static,
) -> (TransportError, Client, Duration)
where
    F: Future<Output = ()> + Send + 'static,
{
    let peer = Peer::new(move |mut stream| {
        let act = act.clone();
        async move {
            let (id, _) = fake::request(&mut stream).await.unwrap();
            act(stream, id).await;
        }
    });
    let mut client = Client::connect(&peer.unix(), deadline).await.unwrap();
    let started = Instant::now();
    let error = ask(&mut client).await.unwrap_err();
    (error, client, started.elapsed())
}

/// What the error chain says below the step.
fn cause(error: &TransportError) -> String {
    std::error::Error::source(error).map(ToString::to_string).unwrap_or_default()
}

async fn forever() {
    std::future::pending().await
}

#[tokio::test]
async fn a_connection_is_used_again_with_rising_odd_ids() {
    let peer = Peer::new(|mut stream| async move {
        assert_eq!(fake::greeting(&mut stream).await, "CONNECT 1024\n");
        stream.write_all(b"OK 1073741829\n").await.unwrap();
        while let Some((id, request)) = fake::request(&mut stream).await {
            assert_eq!((request.service.as_str(), request.method.as_str()), ("grpc.Health", "Version"));
            assert_eq!(request.timeout_nano, 20_000_000_000);
            stream.write_all(&fake::reply(id, version(&id.to_string()))).await.unwrap();
        }
    });
    let mut client = Client::connect(&peer.hybrid(), LONG).await.unwrap();
    for id in ["1", "3", "5"] {
        assert_eq!(ask(&mut client).await.unwrap(), id);
    }
    assert!(client.is_open());
}

#[tokio::test]
async fn bytes_after_the_handshake_line_are_not_swallowed() {
    let peer = Peer::new(|mut stream| async move {
        fake::greeting(&mut stream).await;
        let mut bytes = b"OK 1\n".to_vec();
        bytes.extend(fake::reply(1, version("early")));
        stream.write_all(&bytes).await.unwrap();
        forever().await;
    });
    let mut client = Client::connect(&peer.hybrid(), LONG).await.unwrap();
    assert_eq!(ask(&mut client).await.unwrap(), "early");
}

#[tokio::test]
async fn no_socket_a_stale_socket_and_a_file_are_told_apart_from_a_hung_peer() {
    let dir = tempfile::tempdir().unwrap();
    let expect = |error| match error {
        TransportError::Connect { source, .. } => source.kind(),
        other => panic!("{other:?}"),
    };
    let absent = Address::Unix(dir.path().join("absent"));
    assert_eq!(expect(Client::connect(&absent, LONG).await.unwrap_err()), ErrorKind::NotFound);
    let stale = dir.path().join("stale");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    assert_eq!(expect(Client::connect(&Address::Unix(stale), LONG).await.unwrap_err()), ErrorKind::ConnectionRefused);
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert_eq!(expect(Client::connect(&Address::Unix(file), LONG).await.unwrap_err()), ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_full_backlog_is_an_error_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = tokio::net::UnixSocket::new_stream().unwrap();
    listener.bind(&path).unwrap();
    let _never_accepts = listener.listen(0).unwrap();
    let address = Address::Unix(path);
    let mut held = Vec::new();
    let error = loop {
        match Client::connect(&address, LONG).await {
            Ok(client) => held.push(client),
            Err(error) => break error,
        }
        assert!(held.len() < 10, "a backlog of 0 takes one or two");
    };
    assert!(matches!(error, TransportError::Connect { .. }), "{error:?}");
}

#[tokio::test]
async fn a_path_longer_than_a_socket_address_is_reached() {
    let peer = Peer::answering(|_, _, _| Ok(version("far")));
    let deep = peer.path().with_file_name("d".repeat(120));
    std::fs::create_dir(&deep).unwrap();
    std::os::unix::fs::symlink(peer.path(), deep.join("s")).unwrap();
    let mut client = Client::connect(&Address::Unix(deep.join("s")), LONG).await.unwrap();
    assert_eq!(ask(&mut client).await.unwrap(), "far");
    let absent = Client::connect(&Address::Unix(deep.join("absent")), LONG).await.unwrap_err();
    assert!(matches!(absent, TransportError::Connect { .. }));
}

#[tokio::test]
async fn a_hang_at_the_handshake_is_a_timeout_of_that_step() {
    let peer = Peer::new(|stream| async move {
        let _held_open = stream;
        forever().await;
    });
    let started = Instant::now();
    let error = Client::connect(&peer.hybrid(), SHORT).await.unwrap_err();
    assert!(matches!(&error, TransportError::Timeout { step: Step::Handshake(_), .. }), "{error:?}");
    assert!(error.is_timeout());
    assert!(started.elapsed() < LONG / 2);
}

#[tokio::test]
async fn a_refused_guest_port_is_a_failed_handshake() {
    let peer = Peer::new(|mut stream| async move {
        fake::greeting(&mut stream).await;
    });
    let error = Client::connect(&peer.hybrid(), LONG).await.unwrap_err();
    assert!(matches!(error, TransportError::Handshake { .. }), "{error:?}");
    assert_eq!(cause(&error), "closed without an answer");
}

#[tokio::test]
async fn a_handshake_without_ok_or_without_end_fails() {
    let peer = Peer::new(|mut stream| async move {
        fake::greeting(&mut stream).await;
        stream.write_all(b"ERROR 7\n").await.unwrap();
        forever().await;
    });
    let error = Client::connect(&peer.hybrid(), LONG).await.unwrap_err();
    assert_eq!(cause(&error), "the answer is \"ERROR 7\"");
    let peer = Peer::new(|mut stream| async move {
        fake::greeting(&mut stream).await;
        while stream.write_all(b"OK OK OK ").await.is_ok() {}
    });
    let error = Client::connect(&peer.hybrid(), LONG).await.unwrap_err();
    assert_eq!(cause(&error), "the answer does not end");
}

#[tokio::test]
async fn a_peer_that_closes_early_breaks_the_connection() {
    let (error, mut client, _) = ask_one_who(LONG, |_stream, _| async {}).await;
    assert!(matches!(error, TransportError::Broken { method: "Version", .. }), "{error:?}");
    assert!(!client.is_open());
    let again = ask(&mut client).await.unwrap_err();
    assert!(matches!(again, TransportError::Broken { ref source, .. } if source.kind() == ErrorKind::NotConnected));
    let (error, ..) = ask_one_who(LONG, |mut stream, id| async move {
        let frame = fake::reply(id, version("4.1.0"));
        stream.write_all(&frame[..frame.len() - 1]).await.unwrap();
    })
    .await;
    assert!(matches!(error, TransportError::Broken { ref source, .. } if source.kind() == ErrorKind::UnexpectedEof));
}

#[tokio::test]
async fn a_peer_that_is_gone_before_the_call_breaks_the_connection() {
    let peer = Peer::new(|_stream| async {});
    let mut client = Client::connect(&peer.unix(), LONG).await.unwrap();
    assert!(matches!(ask(&mut client).await, Err(TransportError::Broken { .. })));
    assert!(!client.is_open());
}

#[tokio::test]
async fn garbage_breaks_the_connection_at_once() {
    let (error, client, took) = ask_one_who(LONG, |mut stream, _| async move {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        forever().await;
    })
    .await;
    assert!(matches!(error, TransportError::Broken { .. }), "{error:?}");
    assert!(!client.is_open() && took < LONG / 2);
    // What comes with the answer belongs to no question.
    let (error, client, _) = ask_one_who(LONG, |mut stream, id| async move {
        let mut bytes = fake::reply(id, version("4.1.0"));
        bytes.push(0);
        let _ = stream.write_all(&bytes).await;
        forever().await;
    })
    .await;
    assert_eq!(cause(&error), "more than the answer that was asked for");
    assert!(!client.is_open());
    // An honest frame around a message that is none.
    for body in [&[0x0b, 0x0a, 0x7f][..], &[0xff; 40], b"\x12\x7fx"] {
        let body = body.to_vec();
        let (error, ..) = ask_one_who(LONG, move |mut stream, id| {
            let frame = fake::frame(id, 2, &body);
            async move {
                stream.write_all(&frame).await.unwrap();
                forever().await;
            }
        })
        .await;
        assert!(matches!(error, TransportError::Broken { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn an_undecodable_payload_breaks_the_connection() {
    let (error, client, _) = ask_one_who(LONG, |mut stream, id| async move {
        stream.write_all(&fake::reply(id, vec![0x12, 0x7f])).await.unwrap();
        forever().await;
    })
    .await;
    assert!(matches!(error, TransportError::Broken { .. }), "{error:?}");
    assert!(!client.is_open());
}

#[tokio::test]
async fn an_oversize_frame_is_refused_by_its_header() {
    for claimed in [u32::try_from(MAX_REPLY).unwrap() + 100, 5 << 20, u32::MAX] {
        let (error, client, took) = ask_one_who(LONG, move |mut stream, id| async move {
            let mut header = fake::frame(id, 2, b"");
            header[..4].copy_from_slice(&claimed.to_be_bytes());
            stream.write_all(&header).await.unwrap();
            forever().await;
        })
        .await;
        assert_eq!(cause(&error), format!("an answer of {claimed} bytes, 4160 at most"));
        assert!(!client.is_open() && took < LONG / 2);
    }
}

#[tokio::test]
async fn frames_of_other_streams_and_kinds_break_the_connection() {
    for (stream_id, kind) in [(3, 2), (2, 2), (0, 2), (1, 1), (1, 3), (1, 0)] {
        let (error, client, _) = ask_one_who(LONG, move |mut stream, id| async move {
            assert_eq!(id, 1);
            stream.write_all(&fake::frame(stream_id, kind, &[])).await.unwrap();
            forever().await;
        })
        .await;
        assert_eq!(cause(&error), format!("a frame of type {kind} for stream {stream_id}"));
        assert!(!client.is_open());
    }
}

#[tokio::test]
async fn a_slow_drip_ends_at_the_deadline() {
    let (error, client, took) = ask_one_who(SHORT, |mut stream, id| async move {
        for byte in fake::reply(id, version(&"x".repeat(1000))) {
            if stream.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(matches!(error, TransportError::Timeout { step: Step::Call("Version"), .. }), "{error:?}");
    assert!(!client.is_open());
    assert!(took >= SHORT && took < LONG / 2, "{took:?}");
}

#[tokio::test]
async fn a_late_answer_never_reaches_the_next_call() {
    let (error, mut client, _) = ask_one_who(SHORT, |mut stream, id| async move {
        tokio::time::sleep(SHORT * 2).await;
        let _ = stream.write_all(&fake::reply(id, version("late"))).await;
    })
    .await;
    assert!(error.is_timeout());
    assert!(matches!(ask(&mut client).await, Err(TransportError::Broken { .. })));
}

#[tokio::test]
async fn a_call_that_is_given_up_closes_the_socket() {
    let (closed, seen) = tokio::sync::oneshot::channel();
    let closed = std::sync::Mutex::new(Some(closed));
    let peer = Peer::new(move |mut stream| {
        let closed = closed.lock().unwrap().take();
        async move {
            fake::request(&mut stream).await.unwrap();
            let end = stream.read(&mut [0]).await.unwrap();
            closed.unwrap().send(end).unwrap();
        }
    });
    let mut client = Client::connect(&peer.unix(), LONG).await.unwrap();
    assert!(tokio::time::timeout(SHORT, ask(&mut client)).await.is_err());
    assert!(!client.is_open());
    assert_eq!(tokio::time::timeout(LONG, seen).await.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn a_flood_that_nobody_asked_for_is_not_read() {
    let peer = Peer::new(|mut stream| async move {
        let flood = fake::frame(7, 2, &[0; 1000]);
        while stream.write_all(&flood).await.is_ok() {}
    });
    let mut client = Client::connect(&peer.unix(), LONG).await.unwrap();
    tokio::time::sleep(SHORT).await;
    let error = ask(&mut client).await.unwrap_err();
    assert_eq!(cause(&error), "a frame of type 2 for stream 7");
}

#[tokio::test]
async fn error_statuses_have_a_meaning_each_and_keep_the_connection() {
    type Check = fn(&TransportError) -> bool;
    let cases: [(Code, &'static str, Check); 9] = [
        (Code::PERMISSION_DENIED, "\"GetMetricsRequest is blocked by policy\"", |error| {
            matches!(error, TransportError::Denied { message, .. } if message == "GetMetricsRequest is blocked by policy")
                && error.is_permanent()
        }),
        (
            Code::INVALID_ARGUMENT,
            "\"invalid container id\"",
            |error| matches!(error, TransportError::UnknownId { message, .. } if message == "invalid container id"),
        ),
        (Code::NOT_FOUND, "container x does not exist", |error| matches!(error, TransportError::UnknownId { .. })),
        (Code::UNIMPLEMENTED, "Stats method", |error| matches!(error, TransportError::Unimplemented { .. })),
        (Code::INVALID_ARGUMENT, "containerd.task.v3.Task service does not exist", |error| {
            matches!(error, TransportError::Unimplemented { .. }) && error.is_permanent()
        }),
        (Code::NOT_FOUND, "/grpc.Health/Version is not supported", |error| {
            matches!(error, TransportError::Unimplemented { .. })
        }),
        (Code::DEADLINE_EXCEEDED, "timeout", TransportError::is_timeout),
        (
            Code::INTERNAL,
            "a\nb\u{7}",
            |error| matches!(error, TransportError::Refused { code: 13, message, .. } if message == "a b "),
        ),
        (Code::UNKNOWN, "", |error| matches!(error, TransportError::Refused { code: 2, .. })),
    ];
    for (code, message, expected) in cases {
        let peer = Peer::answering(move |_, _, _| Err((code, message)));
        let mut client = Client::connect(&peer.unix(), LONG).await.unwrap();
        for _ in 0..2 {
            let error = ask(&mut client).await.unwrap_err();
            assert!(expected(&error), "{code:?}: {error:?}");
            assert!(client.is_open());
        }
    }
}

#[tokio::test]
async fn a_status_of_an_unknown_number_is_not_success() {
    let (error, ..) = ask_one_who(LONG, |mut stream, id| async move {
        // status { code: 99 }
        stream.write_all(&fake::frame(id, 2, &[0x0a, 2, 0x08, 99])).await.unwrap();
        forever().await;
    })
    .await;
    assert!(matches!(error, TransportError::Refused { code: 99, .. }), "{error:?}");
}

#[tokio::test]
async fn a_long_message_is_cut_and_a_huge_one_breaks_the_connection() {
    let (error, ..) = ask_one_who(LONG, |mut stream, id| async move {
        stream.write_all(&fake::refusal(id, Code::INTERNAL, &"é".repeat(1000))).await.unwrap();
    })
    .await;
    assert!(matches!(error, TransportError::Refused { ref message, .. } if message.len() == 200), "{error:?}");
    const ROOMY: Method<CheckRequest, VersionCheckResponse> = Method::new("grpc.Health", "Version", 1 << 20);
    let peer = Peer::new(|mut stream| async move {
        let (id, _) = fake::request(&mut stream).await.unwrap();
        stream.write_all(&fake::refusal(id, Code::INTERNAL, &"x".repeat(17 << 10))).await.unwrap();
    });
    let mut client = Client::connect(&peer.unix(), LONG).await.unwrap();
    let error = client.call(&ROOMY, &CheckRequest::new()).await.unwrap_err();
    assert!(matches!(error, TransportError::Broken { .. }), "{error:?}");
}

#[tokio::test]
async fn a_guest_that_is_not_there_is_no_hang() {
    let started = Instant::now();
    let error = Client::connect(&Address::Vsock(u32::MAX - 1), SHORT).await.unwrap_err();
    assert!(
        matches!(
            error,
            TransportError::Connect { .. }
                | TransportError::NotPermitted { .. }
                | TransportError::Timeout { step: Step::Connect(_), .. }
        ),
        "{error:?}"
    );
    assert!(started.elapsed() < LONG / 2);
}

#[test]
fn a_forbidden_socket_is_a_state_of_its_own() {
    for number in [libc_eperm(), libc_eacces()] {
        let error = super::refused(Address::Vsock(5), std::io::Error::from_raw_os_error(number));
        assert!(matches!(error, TransportError::NotPermitted { .. }));
        assert!(error.is_permanent() && !error.is_timeout());
    }
}

/// What a seccomp profile answers to `socket(AF_VSOCK)`.
fn libc_eperm() -> i32 {
    rustix::io::Errno::PERM.raw_os_error()
}

/// What the kernel answers for a socket of somebody else.
fn libc_eacces() -> i32 {
    rustix::io::Errno::ACCESS.raw_os_error()
}

/// The peer is the server of the `ttrpc` crate, which is what the kata-agent and the Rust shim run.
mod against_the_crates_own_server {
    use std::collections::HashMap;
    use std::pin::Pin;

    use ttrpc::r#async::{MethodHandler, Server, Service, TtrpcContext};
    use ttrpc::{Request, Response};

    use super::*;

    struct Versioned;

    impl MethodHandler for Versioned {
        fn handler<'a, 'b>(
            &'a self,
            context: TtrpcContext,
            request: Request,
        ) -> Pin<Box<dyn Future<Output = ttrpc::Result<Response>> + Send + 'b>>
        where
            'a: 'b,
            Self: 'b,
        {
            Box::pin(async move {
                assert_eq!(context.timeout_nano, i64::try_from(LONG.as_nanos()).unwrap());
                assert_eq!(request.payload, b"");
                Ok(Response { payload: version("4.1.0"), ..Response::default() })
            })
        }
    }

    #[tokio::test]
    async fn it_answers_and_says_what_it_does_not_have() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let methods =
            HashMap::from([("Version".to_owned(), Box::new(Versioned) as Box<dyn MethodHandler + Send + Sync>)]);
        let services = HashMap::from([("grpc.Health".to_owned(), Service { methods, streams: HashMap::new() })]);
        let mut server = Server::new().bind(&format!("unix://{}", path.display())).unwrap().register_service(services);
        server.start().await.unwrap();
        let mut client = Client::connect(&Address::Unix(path), LONG).await.unwrap();
        assert_eq!(ask(&mut client).await.unwrap(), "4.1.0");
        const NO_METHOD: Method<CheckRequest, VersionCheckResponse> = Method::new("grpc.Health", "Nope", MAX_REPLY);
        const NO_SERVICE: Method<CheckRequest, VersionCheckResponse> = Method::new("grpc.Nope", "Version", MAX_REPLY);
        for method in [&NO_METHOD, &NO_SERVICE] {
            let error = client.call(method, &CheckRequest::new()).await.unwrap_err();
            assert!(matches!(error, TransportError::Unimplemented { .. }), "{error:?}");
        }
        assert_eq!(ask(&mut client).await.unwrap(), "4.1.0");
        server.shutdown().await.unwrap();
    }
}
