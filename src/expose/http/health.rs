//! `/livez`, `/readyz` and `/healthz`: whether the agent is well.

use actix_web::http::StatusCode;
use actix_web::web::{self, Data};
use actix_web::{HttpRequest, HttpResponse};

use super::{Routes, TEXT, parameters, resource};
use crate::model::snapshot::Health;

/// All of them.
pub(super) fn routes(config: &mut web::ServiceConfig) {
    resource(config, "/livez", web::get().to(live), web::head().to(live));
    resource(config, "/readyz", web::get().to(ready), web::head().to(ready));
    resource(config, "/healthz", web::get().to(ready), web::head().to(ready));
}

async fn live(request: HttpRequest, routes: Data<Routes>) -> HttpResponse {
    let health = routes.source.health();
    say_health(&request, health.live, &health)
}

async fn ready(request: HttpRequest, routes: Data<Routes>) -> HttpResponse {
    let health = routes.source.health();
    say_health(&request, health.ready, &health)
}

/// `ok`, or why not; with `?verbose` every check, those that only inform included.
fn say_health(request: &HttpRequest, well: bool, health: &Health) -> HttpResponse {
    let verbose = parameters(request, "verbose").is_ok_and(|given| !given.is_empty());
    let problems = health.checks.iter().filter_map(|check| Some((check.name, check.problem.as_ref()?)));
    let body = if verbose {
        let mut body = String::new();
        for check in &health.checks {
            match &check.problem {
                None => body.push_str(&format!("[+] {} ok\n", check.name)),
                Some(problem) => body.push_str(&format!("[-] {}: {problem}\n", check.name)),
            }
        }
        body.push_str(if well { "ok\n" } else { "not ok\n" });
        body
    } else if well {
        "ok\n".to_owned()
    } else {
        problems.map(|(name, problem)| format!("{name}: {problem}\n")).collect()
    };
    let status = if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    HttpResponse::build(status).content_type(TEXT).body(body)
}
