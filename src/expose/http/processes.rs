//! `/processes`: who uses most.

use actix_web::http::{StatusCode, header};
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};

use super::{Refusal, Routes, TEXT, header_text, parameters, snapshot};
use crate::expose::negotiate;
use crate::expose::processes::{Most, html, plain};
use crate::model::top::LISTED;

/// Processes listed when nobody says how many.
const DEFAULT: usize = 10;

/// Takes `?top=N`. Which collector it needs is said where that is off.
pub(super) async fn page(request: HttpRequest, routes: Data<Routes>) -> Result<HttpResponse, Refusal> {
    let wanted = match parameters(&request, "top")?.as_slice() {
        [] => DEFAULT,
        [one] => one
            .parse()
            .ok()
            .filter(|wanted| (1..=LISTED).contains(wanted))
            .ok_or_else(|| Refusal::bad_request(format!("top: a number from 1 to {LISTED}")))?,
        _ => return Err(Refusal::bad_request("top: given more than once")),
    };
    let snapshot = snapshot(&request, &routes).await?;
    let Some(most) = Most::of(&snapshot, wanted) else {
        // Off, or its first look has failed: `/metrics` tells which.
        let reason = "no processes are known; the collector is switched on with --enable-collectors top";
        return Err(Refusal::new(StatusCode::NOT_FOUND, reason));
    };
    let accept = header_text(&request, &header::ACCEPT);
    let mut response = HttpResponse::Ok();
    response.insert_header((header::VARY, "Accept"));
    Ok(if negotiate::wants(accept, "text/html") {
        response.content_type("text/html; charset=utf-8").body(html(&most))
    } else if negotiate::wants(accept, "text/plain") {
        response.content_type(TEXT).body(plain(&most))
    } else {
        response.json(most)
    })
}
