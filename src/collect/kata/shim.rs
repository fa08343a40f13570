//! A shim's management socket: `GET /agent-url` and `GET /metrics`, and nothing else.
//!
//! The socket also has routes that change a sandbox; none of them can be expressed here. Asking for metrics takes a
//! [`Permit`]: a shim that does not survive the question takes its machine with it.

use std::path::PathBuf;
use std::time::Duration;

use crate::collect::kata::gate::Permit;
use crate::collect::kata::guest_text::{Parsed, Parser};
use crate::unix_http::{self, Bounds, HttpError};

/// Longest time for one answer. While a guest boots, is stopped or has panicked, there is none.
pub const DEADLINE: Duration = Duration::from_secs(3);

/// Largest text taken. Real ones are 15 to 40 kB; this one has 100 000 samples, of which the parser looks at a fifth.
const MAX_TEXT_BYTES: usize = 8 << 20;

/// Largest agent URL taken: a path and a scheme.
const MAX_URL_BYTES: usize = 8 << 10;

/// What may be asked.
#[derive(Clone, Copy, Debug)]
enum Route {
    AgentUrl,
    Metrics,
}

impl Route {
    const fn path(self) -> &'static str {
        match self {
            Self::AgentUrl => "/agent-url",
            Self::Metrics => "/metrics",
        }
    }
}

/// One sandbox's shim, by its `shim-monitor.sock`. Each question is a connection of its own.
#[derive(Clone, Debug)]
pub struct Shim {
    socket: PathBuf,
}

impl Shim {
    /// Nothing is connected yet.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// How to reach the sandbox's agent: `hvsock:///run/kata/<id>/ch-vm.sock:1024`, `vsock://3506352936:1024`. Blank
    /// when a runtime-rs shim does not know (yet). Safe with every shim, whatever its hypervisor.
    pub async fn agent_url(&self, deadline: Duration) -> Result<String, HttpError> {
        let bounds = Bounds { deadline: deadline.min(DEADLINE), body_bytes: MAX_URL_BYTES };
        let url = unix_http::get_bytes(&self.socket, Route::AgentUrl.path(), bounds).await?;
        Ok(String::from_utf8_lossy(&url).trim().to_owned())
    }

    /// The guest's facts, from the agent's part of the text. They are all absent while the agent is not up:
    /// `agent_scrapes` tells.
    pub async fn guest(&self, deadline: Duration, permit: &Permit) -> Result<Parsed, HttpError> {
        let mut parser = Parser::new();
        self.text(deadline, permit, |piece| parser.feed(piece)).await?;
        Ok(parser.finish())
    }

    /// The text itself, piece by piece as it arrives. After an error the pieces are not the whole text.
    pub async fn text(&self, deadline: Duration, _permit: &Permit, take: impl FnMut(&[u8])) -> Result<(), HttpError> {
        let bounds = Bounds { deadline: deadline.min(DEADLINE), body_bytes: MAX_TEXT_BYTES };
        unix_http::get(&self.socket, Route::Metrics.path(), bounds, take).await
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::collect::kata::fixtures::{WEB, recorded, unpacked};
    use crate::collect::kata::gate::{ShimScrape, Verdict};
    use crate::model::units::Bytes;
    use crate::unix_http::Fault;
    use crate::unix_http::server::{Server, chunked, whole};

    fn permit() -> Permit {
        Verdict::Safe.permit(ShimScrape::Safe).unwrap()
    }

    fn go_text() -> Vec<u8> {
        unpacked(include_bytes!("../../../tests/fixtures/kata/shim-metrics-go-clh.txt.gz"))
    }

    /// What a Go shim sends: chunks that end in the middle of a number.
    #[tokio::test]
    async fn a_chunked_text_is_read_as_if_it_were_whole() {
        let text = go_text();
        let whole = Parser::parse(&text);
        for size in [1, 7, 1000, 2048, 32_768, text.len()] {
            let server = Server::saying(chunked(&text, size));
            let parsed = Shim::new(server.socket()).guest(DEADLINE, &permit()).await.unwrap();
            assert_eq!(parsed, whole, "chunks of {size}");
            assert!(server.head().starts_with("GET /metrics HTTP/1.1\r\n"));
        }
    }

    #[tokio::test]
    async fn the_recorded_answers_byte_for_byte() {
        let files = recorded(WEB);
        let read = |name: &str| files[&format!("t0/kata/{WEB}/{name}")].clone();

        let server = Server::saying(read("agent-url.http"));
        let url = Shim::new(server.socket()).agent_url(DEADLINE).await.unwrap();
        assert_eq!(url, format!("hvsock:///run/kata/{WEB}/ch-vm.sock:1024"));
        assert!(server.head().starts_with("GET /agent-url HTTP/1.1\r\n"));

        let server = Server::saying(read("metrics.http"));
        let shim = Shim::new(server.socket());
        let guest = shim.guest(DEADLINE, &permit()).await.unwrap().guest;
        assert_eq!(guest.memory.total, Some(Bytes(492_982_272)));
        let mut text = Vec::new();
        shim.text(DEADLINE, &permit(), |piece| text.extend_from_slice(piece)).await.unwrap();
        assert_eq!(text.len(), 18_035, "the content-length it announced");
        assert!(text.starts_with(b"# HELP kata_agent_io_stat"));

        let server = Server::saying(read("404.http"));
        let error = Shim::new(server.socket()).agent_url(DEADLINE).await.unwrap_err();
        assert!(matches!(error.fault, Fault::Status { status: 404, .. }));
    }

    #[tokio::test]
    async fn a_shim_without_a_url_says_nothing_and_a_dying_one_is_known() {
        let server = Server::saying(whole(b""));
        assert_eq!(Shim::new(server.socket()).agent_url(DEADLINE).await.unwrap(), "");
        let server = Server::saying("");
        let error = Shim::new(server.socket()).guest(DEADLINE, &permit()).await.unwrap_err();
        assert!(matches!(error.fault, Fault::NoAnswer));
        let server = Server::saying(whole(&vec![b'h'; 10_000]));
        let error = Shim::new(server.socket()).agent_url(DEADLINE).await.unwrap_err();
        assert!(matches!(error.fault, Fault::TooLarge(_)));
    }

    #[tokio::test]
    async fn a_text_that_breaks_off_gives_no_facts() {
        let answer = whole(&go_text());
        let server = Server::saying(&answer[..answer.len() - 1]);
        let error = Shim::new(server.socket()).guest(DEADLINE, &permit()).await.unwrap_err();
        assert!(matches!(error.fault, Fault::Broken(_)), "{error:?}");
    }

    #[tokio::test]
    async fn a_flood_ends_at_the_cap() {
        let server = Server::new(|stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n")?;
            let line = "kata_guest_load{item=\"load1\"} 1\n".repeat(1000);
            loop {
                stream.write_all(line.as_bytes())?;
            }
        });
        let error = Shim::new(server.socket()).text(DEADLINE, &permit(), |_| ()).await.unwrap_err();
        assert!(matches!(error.fault, Fault::TooLarge(MAX_TEXT_BYTES)), "{error:?}");
    }

    #[tokio::test]
    async fn no_deadline_is_longer_than_the_shims_own() {
        let server = Server::new(|_| {
            std::thread::sleep(Duration::from_secs(1));
            Ok(())
        });
        let error = Shim::new(server.socket()).guest(Duration::from_millis(50), &permit()).await.unwrap_err();
        assert!(matches!(error.fault, Fault::Late(after) if after == Duration::from_millis(50)));
    }
}
