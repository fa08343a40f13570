//! The routes. Handed a [`SnapshotSource`], it knows no collector, does no reading, and only encodes.

mod connections;
mod guard;
mod health;
mod in_flight;
mod kata;
mod landing;
mod listen;
mod pieces;
mod processes;
mod summary;

use std::borrow::Cow;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actix_server::Server;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::{StatusCode, header};
use actix_web::middleware::{Next, from_fn};
use actix_web::web::{self, Bytes, Data};
use actix_web::{App, HttpRequest, HttpResponse, ResponseError};

use self::connections::{Connection, Connections};
use self::in_flight::InFlight;
use self::listen::Door;
use self::pieces::Pieces;
use crate::expose::negotiate;
use crate::expose::page::{Key, Pages};
use crate::expose::rates::Rates;
use crate::expose::sandboxes;
use crate::expose::text::Format;
use crate::expose::walk::View;
use crate::heap::Trimmer;
use crate::model::identity::SandboxId;
use crate::model::inventory::{Inventory, Runtime};
use crate::model::snapshot::{Snapshot, SnapshotSource};
use crate::telemetry::Telemetry;
use crate::web::{HEALTH_PATHS, Web};

/// How long a client may take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an idle connection is kept: longer than the usual minute between two scrapes.
const KEEP_ALIVE: Duration = Duration::from_secs(90);

/// The deadline of a scrape that does not name one: Prometheus' default timeout.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(10);

/// Kept back from the deadline that a scrape names, for encoding and the way back.
const DEADLINE_MARGIN: Duration = Duration::from_millis(500);

/// Shortest prefix of a sandbox id that is taken for it.
const MIN_PREFIX: usize = 12;

/// Longest sandbox id looked up.
const MAX_ID: usize = 128;

/// Seconds that requests in flight have to finish after the server was told to stop.
const SHUTDOWN_SECS: u64 = 5;

/// What the routes need.
pub struct Routes {
    /// Gives snapshots.
    pub source: Arc<dyn SnapshotSource>,
    /// Encodes them.
    pub pages: Arc<Pages>,
    /// Counts requests.
    pub telemetry: Arc<Telemetry>,
    /// Knows who may come in.
    pub web: Arc<Web>,
    in_flight: InFlight,
    rates: Arc<Rates>,
}

impl Routes {
    /// Routes over a source.
    pub fn new(source: Arc<dyn SnapshotSource>, pages: Arc<Pages>, telemetry: Arc<Telemetry>, web: Arc<Web>) -> Self {
        let bodies = Arc::clone(&pages);
        let trimmer = Trimmer::default();
        let in_flight = InFlight::new(move || {
            bodies.forget();
            trimmer.memory_became_free();
        });
        Self { source, pages, telemetry, web, in_flight, rates: Arc::default() }
    }
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}, choose another with --{setting}")]
pub struct ListenError {
    address: String,
    setting: &'static str,
    source: io::Error,
}

/// Where to listen.
#[derive(Clone, Copy, Debug)]
pub struct Listen<'a> {
    /// Everything, over TLS if there is a certificate.
    pub all: &'a [String],
    /// Health alone, plain.
    pub health: Option<&'a str>,
}

/// The addresses really bound, ports filled in.
#[derive(Debug)]
pub struct Bound {
    /// Those that serve everything.
    pub all: Vec<SocketAddr>,
    /// Those that serve health alone.
    pub health: Vec<SocketAddr>,
}

/// Binds the addresses; the server runs when awaited.
pub fn serve(routes: Routes, listen: Listen<'_>) -> Result<(Server, Bound), ListenError> {
    let web = Arc::clone(&routes.web);
    let connections = Connections::new(Arc::clone(&routes.telemetry));
    let routes = Data::new(routes);
    let everything = {
        let routes = routes.clone();
        move || {
            App::new()
                .app_data(routes.clone())
                .wrap(from_fn(limit))
                .wrap(from_fn(guard::guard))
                .wrap(from_fn(count))
                .configure(|config| {
                    resource(config, "/", web::get().to(landing::page), web::head().to(landing::page));
                    resource(config, "/metrics", web::get().to(metrics), web::head().to(metrics));
                    resource(config, "/metrics/cadvisor", web::get().to(cadvisor), web::head().to(cadvisor));
                    resource(config, "/metrics/resource", web::get().to(resources), web::head().to(resources));
                    resource(config, "/metrics/kata", web::get().to(kata::metrics), web::head().to(kata::metrics));
                    resource(config, "/stats/summary", web::get().to(summary::page), web::head().to(summary::page));
                    resource(config, "/sandboxes", web::get().to(list_sandboxes), web::head().to(list_sandboxes));
                    resource(config, "/processes", web::get().to(processes::page), web::head().to(processes::page));
                    health::routes(config);
                })
                .default_service(web::to(not_found))
        }
    };
    let health_alone = move || {
        App::new()
            .app_data(routes.clone())
            .wrap(from_fn(count))
            .configure(health::routes)
            .default_service(web::to(not_found))
    };
    let mut server = Server::build()
        .workers(2)
        // A worker that is full makes the server stop accepting, for health as well: the limit that counts makes room.
        .max_concurrent_connections(connections.max() * 2)
        .shutdown_timeout(SHUTDOWN_SECS)
        .disable_signals();
    let mut bound = Bound { all: Vec::new(), health: Vec::new() };
    for address in listen.all {
        let failed = |source| ListenError { address: address.clone(), setting: "listen-address", source };
        for socket in listen::bind(address).map_err(failed)? {
            bound.all.push(socket.local_addr().map_err(failed)?);
            let tls = web.is_tls().then(|| Arc::clone(&web));
            let door = Door { connections: Arc::clone(&connections), tls };
            server = listen::add(server, socket, everything.clone(), door).map_err(failed)?;
        }
    }
    if let Some(address) = listen.health {
        let failed = |source| ListenError { address: address.to_owned(), setting: "health-listen-address", source };
        for socket in listen::bind(address).map_err(failed)? {
            bound.health.push(socket.local_addr().map_err(failed)?);
            let door = Door { connections: Arc::clone(&connections), tls: None };
            server = listen::add(server, socket, health_alone.clone(), door).map_err(failed)?;
        }
    }
    Ok((server.run(), bound))
}

/// A path that answers GET and HEAD and says so to everything else.
fn resource(config: &mut web::ServiceConfig, path: &str, get: actix_web::Route, head: actix_web::Route) {
    config.service(web::resource(path).route(get).route(head).default_service(web::to(method_not_allowed)));
}

const TEXT: &str = "text/plain; charset=utf-8";

/// A request that gets no answer, with the reason in one line.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
struct Refusal {
    status: StatusCode,
    reason: Cow<'static, str>,
}

impl Refusal {
    fn new(status: StatusCode, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { status, reason: reason.into() }
    }

    fn bad_request(reason: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, reason)
    }
}

impl ResponseError for Refusal {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            response.insert_header((header::ALLOW, "GET, HEAD"));
        }
        response.content_type(TEXT).body(format!("{}\n", self.reason))
    }
}

async fn method_not_allowed() -> Result<HttpResponse, Refusal> {
    Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD"))
}

async fn not_found() -> Result<HttpResponse, Refusal> {
    Err(Refusal::new(StatusCode::NOT_FOUND, "no such path; / lists them"))
}

/// Counts requests by handler and status, those that are refused included. Their connections do not make way for others.
async fn count(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let connection = request.conn_data::<Arc<Connection>>().cloned();
    let _answering = connection.map(|connection| connection.answering(has_body(&request)));
    let routes = request.app_data::<Data<Routes>>().cloned();
    let handler = request.match_pattern().unwrap_or_else(|| "other".to_owned());
    let response = next.call(request).await?;
    if let Some(routes) = routes {
        let code = response.status();
        routes.telemetry.http_requests.with_label_values(&[handler.as_str(), code.as_str()]).inc();
    }
    Ok(response)
}

/// A request with a body that nobody reads: no path here wants one.
fn has_body(request: &ServiceRequest) -> bool {
    let headers = request.headers();
    headers.contains_key(header::TRANSFER_ENCODING) || headers.contains_key(header::CONTENT_LENGTH)
}

/// Refuses more requests at once than can be answered. Health paths are never refused: being busy is no reason to be
/// restarted.
async fn limit(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let Some(routes) = request.app_data::<Data<Routes>>().cloned() else {
        return next.call(request).await.map(ServiceResponse::map_into_left_body);
    };
    let health = request.match_pattern().is_some_and(|pattern| HEALTH_PATHS.contains(&pattern.as_str()));
    let client = request.peer_addr().map(|address| address.ip());
    let Some(_place) = routes.in_flight.enter(client, health) else {
        let refused = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "too many requests in flight");
        return Ok(request.into_response(refused.error_response()).map_into_right_body());
    };
    let _counted = Counted::new(&routes.telemetry);
    Ok(next.call(request).await?.map_into_left_body())
}

/// Counts a request for as long as it is answered.
struct Counted<'a>(&'a Telemetry);

impl<'a> Counted<'a> {
    fn new(telemetry: &'a Telemetry) -> Self {
        telemetry.http_in_flight.inc();
        Self(telemetry)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.http_in_flight.dec();
    }
}

fn header_text<'r>(request: &'r HttpRequest, name: &header::HeaderName) -> &'r str {
    request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The time a scrape leaves us.
fn deadline(request: &HttpRequest) -> Duration {
    let named = request
        .headers()
        .get("x-prometheus-scrape-timeout-seconds")
        .and_then(|value| value.to_str().ok()?.trim().parse::<f64>().ok())
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|named| !named.is_zero());
    match named {
        Some(named) => named.saturating_sub(DEADLINE_MARGIN).max(named / 2),
        None => DEFAULT_DEADLINE,
    }
}

/// The values of a query parameter, decoded.
fn parameters(request: &HttpRequest, name: &str) -> Result<Vec<String>, Refusal> {
    let pairs = web::Query::<Vec<(String, String)>>::from_query(request.query_string())
        .map_err(|error| Refusal::bad_request(format!("query: {error}")))?;
    Ok(pairs.into_inner().into_iter().filter(|(key, _)| key == name).map(|(_, value)| value).collect())
}

async fn metrics(request: HttpRequest, routes: Data<Routes>) -> Result<HttpResponse, Refusal> {
    let sandbox = parameters(&request, "sandbox")?;
    match sandbox.as_slice() {
        [] => exposition(&request, &routes, |_| Ok(View::All)).await,
        [asked] => exposition(&request, &routes, |inventory| find_sandbox(inventory, asked).map(View::Sandbox)).await,
        _ => Err(Refusal::bad_request("sandbox: given more than once")),
    }
}

async fn cadvisor(request: HttpRequest, routes: Data<Routes>) -> Result<HttpResponse, Refusal> {
    exposition(&request, &routes, |_| Ok(View::Cadvisor)).await
}

async fn resources(request: HttpRequest, routes: Data<Routes>) -> Result<HttpResponse, Refusal> {
    exposition(&request, &routes, |_| Ok(View::Resource)).await
}

async fn snapshot(request: &HttpRequest, routes: &Routes) -> Result<Arc<Snapshot>, Refusal> {
    let taken = routes.source.snapshot(deadline(request)).await;
    taken.map_err(|error| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))
}

async fn exposition(
    request: &HttpRequest,
    routes: &Routes,
    view: impl FnOnce(&Inventory) -> Result<View, Refusal>,
) -> Result<HttpResponse, Refusal> {
    let snapshot = snapshot(request, routes).await?;
    let view = view(&snapshot.inventory)?;
    let format = negotiate::format(header_text(request, &header::ACCEPT));
    let gzip = negotiate::gzip(header_text(request, &header::ACCEPT_ENCODING));
    let body = routes
        .pages
        .body(&snapshot, Key { view, format, gzip })
        .await
        .map_err(|_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the body could not be encoded"))?;
    Ok(exposed(format, gzip, body))
}

/// An exposition with its headers.
fn exposed(format: Format, gzip: bool, body: impl Into<Bytes>) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    response.insert_header((header::CONTENT_TYPE, format.content_type()));
    response.insert_header((header::VARY, "Accept, Accept-Encoding"));
    if gzip {
        response.insert_header((header::CONTENT_ENCODING, "gzip"));
    }
    response.body(Pieces::of(body.into()))
}

/// The sandbox that a full id or a unique prefix names.
fn find_sandbox(inventory: &Inventory, asked: &str) -> Result<SandboxId, Refusal> {
    let plausible = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if asked.is_empty() || asked.len() > MAX_ID || !asked.bytes().all(plausible) {
        return Err(Refusal::bad_request("sandbox: not an id"));
    }
    if let Some(exact) = inventory.sandboxes.iter().find(|sandbox| sandbox.id.as_str() == asked) {
        return Ok(exact.id.clone());
    }
    if asked.len() < MIN_PREFIX {
        return Err(Refusal::bad_request("sandbox: a prefix needs 12 characters or more"));
    }
    let mut matching = inventory.sandboxes.iter().filter(|sandbox| sandbox.id.as_str().starts_with(asked));
    match (matching.next(), matching.next()) {
        (Some(only), None) => Ok(only.id.clone()),
        (Some(_), Some(_)) => Err(Refusal::new(StatusCode::CONFLICT, "sandbox: more than one id begins like this")),
        _ => Err(Refusal::new(StatusCode::NOT_FOUND, "sandbox: unknown; /sandboxes lists them")),
    }
}

async fn list_sandboxes(request: HttpRequest, routes: Data<Routes>) -> Result<HttpResponse, Refusal> {
    let runtimes = parameters(&request, "runtime")?;
    let runtime = match runtimes.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => None,
        ["kata"] => Some(Runtime::Kata),
        ["runc"] => Some(Runtime::Runc),
        _ => return Err(Refusal::bad_request("runtime: kata or runc")),
    };
    let snapshot = snapshot(&request, &routes).await?;
    // What is there now: a collection takes its time, and its list is of when it began.
    let inventory = routes.source.inventory().await;
    let entries = sandboxes::entries(&snapshot, &inventory, runtime);
    let accept = header_text(&request, &header::ACCEPT);
    let mut response = HttpResponse::Ok();
    response.insert_header((header::VARY, "Accept"));
    Ok(if negotiate::wants(accept, "text/html") {
        response.content_type("text/html; charset=utf-8").body(sandboxes::html(&entries))
    } else if negotiate::wants(accept, "text/plain") {
        response.content_type(TEXT).body(sandboxes::plain(&entries))
    } else {
        response.json(entries)
    })
}
