//! Sockets, with TLS or without. actix' own TLS listener takes one configuration for good; this one asks for it with each
//! connection, so that a certificate rotates without a restart. Each connection first gets its place among all.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use actix_http::error::DispatchError;
use actix_http::{HttpService, Protocol, Request, Response};
use actix_server::ServerBuilder;
use actix_service::{IntoServiceFactory, ServiceFactory, ServiceFactoryExt, fn_service, map_config};
use actix_web::body::MessageBody;
use actix_web::dev::AppConfig;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::connections::{Connections, Stream};
use super::{HEAD_TIMEOUT, KEEP_ALIVE};
use crate::web::Web;

/// How long a client may take for the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the end of a connection may take.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// Sockets on all addresses that a name stands for.
pub(super) fn bind(address: &str) -> io::Result<Vec<TcpListener>> {
    let mut failed = io::Error::other("the name has no address");
    let mut bound = Vec::new();
    for address in address.to_socket_addrs()? {
        match listener(address) {
            Ok(socket) => bound.push(socket),
            Err(error) => failed = error,
        }
    }
    if bound.is_empty() { Err(failed) } else { Ok(bound) }
}

/// Free again at once after a restart, and with room for many who connect at once.
fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

/// How the connections of a socket are taken.
#[derive(Clone)]
pub(super) struct Door {
    /// Gives each its place.
    pub(super) connections: Arc<Connections>,
    /// Has the certificate; plain without it.
    pub(super) tls: Option<Arc<Web>>,
}

/// Serves an application on a socket.
pub(super) fn add<F, I, S, B>(
    server: ServerBuilder,
    socket: TcpListener,
    application: F,
    door: Door,
) -> io::Result<ServerBuilder>
where
    F: Fn() -> I + Send + Clone + 'static,
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Error: Into<actix_web::Error> + 'static,
    S::InitError: fmt::Debug,
    S::Response: Into<Response<B>> + 'static,
    <S::Service as actix_service::Service<Request>>::Future: 'static,
    S::Service: 'static,
    B: MessageBody + 'static,
{
    let address = socket.local_addr()?;
    let stopping = server.graceful_shutdown_signal();
    // No function, because the type of what it makes names the stream, plain or not, and all that is served on it.
    macro_rules! http {
        ($inner:expr) => {{
            let stopping = stopping.clone();
            let application = application().into_factory().map_err(|error: S::Error| error.into().error_response());
            HttpService::build()
                .graceful_shutdown_signal(move || {
                    let stopping = stopping.clone();
                    async move { stopping.notified().await }
                })
                .keep_alive(KEEP_ALIVE)
                .client_request_timeout(HEAD_TIMEOUT)
                .client_disconnect_timeout(DISCONNECT_TIMEOUT)
                .local_addr(address)
                .on_connect_ext(move |stream, data| {
                    let inner: fn(&_) -> &Stream = $inner;
                    data.insert(inner(stream).connection());
                })
                .finish(map_config(application, |()| AppConfig::default()))
        }};
    }
    let name = format!("http {address}");
    let Door { connections, tls } = door;
    match tls {
        None => server.listen(name, socket, move || {
            let connections = Arc::clone(&connections);
            fn_service(move |stream: TcpStream| {
                let admitted = connections.admit(stream).map_err(DispatchError::Io);
                async move {
                    let stream = admitted?;
                    let peer = stream.peer_addr();
                    Ok::<_, DispatchError>((stream, Protocol::Http1, peer))
                }
            })
            .and_then(http!(|stream: &Stream| stream))
        }),
        Some(web) => server.listen(name, socket, move || {
            let (web, connections) = (Arc::clone(&web), Arc::clone(&connections));
            fn_service(move |stream: TcpStream| {
                let web = Arc::clone(&web);
                let admitted = connections.admit(stream).map_err(DispatchError::Io);
                async move {
                    let stream = admitted?;
                    let peer = stream.peer_addr();
                    let stream = handshake(stream, &web).await.inspect_err(|error| {
                        tracing::debug!(%error, peer = peer.map(tracing::field::display), "no TLS connection");
                    });
                    Ok::<_, DispatchError>((stream.map_err(DispatchError::Io)?, Protocol::Http1, peer))
                }
            })
            .and_then(http!(|stream: &TlsStream<Stream>| stream.get_ref().0))
        }),
    }
}

/// Takes the client's side of TLS, in the time that it has.
async fn handshake(stream: Stream, web: &Arc<Web>) -> io::Result<TlsStream<Stream>> {
    // A listener of TLS always has a configuration; were there none, nobody would be served plainly.
    let config = web.tls().await.ok_or_else(|| io::Error::other("no certificate"))?;
    tokio::time::timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(config).accept(stream))
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "the handshake takes too long")))
}
