//! `/metrics/kata`: the shims' own metrics under the names and labels that kata-monitor gives them.

use std::sync::Arc;

use actix_web::http::{StatusCode, header};
use actix_web::web::{self, Data};
use actix_web::{HttpRequest, HttpResponse};

use super::{Refusal, Routes, deadline, exposed, find_sandbox, header_text, parameters};
use crate::expose::text::Text;
use crate::expose::{negotiate, passthrough};
use crate::model::inventory::{Runtime, Sandbox};

/// Most prefixes of family names in one request.
const MAX_PREFIXES: usize = 64;

/// `?sandbox=` asks one shim, `?filter_family=` takes the beginnings of family names, separated by commas.
pub(super) async fn metrics(request: HttpRequest, routes: Data<Routes>) -> Result<HttpResponse, Refusal> {
    let sandbox = match parameters(&request, "sandbox")?.as_slice() {
        [] => None,
        [asked] => {
            let inventory = routes.source.inventory().await;
            let found = find_sandbox(&inventory, asked)?;
            let is_kata = |sandbox: &Arc<Sandbox>| sandbox.id == found && sandbox.runtime == Runtime::Kata;
            if !inventory.sandboxes.iter().any(is_kata) {
                return Err(Refusal::new(StatusCode::NOT_FOUND, "sandbox: not a Kata sandbox"));
            }
            Some(found)
        }
        _ => return Err(Refusal::bad_request("sandbox: given more than once")),
    };
    let prefixes = prefixes(&request)?;
    let alone = sandbox.is_some();
    let passed = routes.source.passthrough(sandbox, deadline(&request)).await;
    let passed = passed.map_err(|error| Refusal::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    let format = negotiate::format(header_text(&request, &header::ACCEPT));
    let gzip = negotiate::gzip(header_text(&request, &header::ACCEPT_ENCODING));
    // kata-monitor speaks of itself only where it serves everything.
    let own = if alone || !prefixes.is_empty() { Vec::new() } else { routes.telemetry.monitor.gather() };
    let encoded = web::block(move || {
        let mut text = if gzip { Text::compressed(format) } else { Text::new(format, 4 << 10) };
        passthrough::write(&passed, &prefixes, &mut text);
        text.gathered(&own);
        text.finish()
    });
    let failed = |_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the body could not be encoded");
    let body = encoded.await.map_err(failed)?;
    Ok(exposed(format, gzip, body))
}

fn prefixes(request: &HttpRequest) -> Result<Vec<String>, Refusal> {
    let given = parameters(request, "filter_family")?;
    let prefixes: Vec<String> = given
        .iter()
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .filter(|one| !one.is_empty())
        .map(str::to_owned)
        .collect();
    if prefixes.len() > MAX_PREFIXES {
        return Err(Refusal::bad_request("filter_family: too many prefixes"));
    }
    Ok(prefixes)
}
