//! Asks [`Web`](crate::web::Web) about every request before anything else looks at it, and says no in its name.

use actix_web::HttpResponse;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::web::Data;

use super::{Routes, TEXT};
use crate::web::credentials::Credentials;
use crate::web::{Asked, Refused};

/// Lets pass whom the web configuration lets pass.
pub(super) async fn guard(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let Some(routes) = request.app_data::<Data<Routes>>().cloned() else {
        // Without them nobody knows who may come in.
        let refused = HttpResponse::InternalServerError().finish();
        return Ok(request.into_response(refused).map_into_right_body());
    };
    if routes.web.is_idle() {
        return next.call(request).await.map(ServiceResponse::map_into_left_body);
    }
    let sent = request.headers().get_all(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let asked = Asked { path: request.uri().path(), credentials: Credentials::of(sent) };
    let admission = routes.web.admit(asked).await;
    let mut response = match admission.verdict {
        Ok(()) => next.call(request).await?.map_into_left_body(),
        Err(refused) => request.into_response(say(&refused)).map_into_right_body(),
    };
    add(response.headers_mut(), &admission.headers);
    Ok(response)
}

fn add(headers: &mut HeaderMap, configured: &[(&'static str, String)]) {
    for (name, value) in configured {
        // Both were checked when the configuration was read.
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
            headers.insert(name, value);
        }
    }
}

fn say(refused: &Refused) -> HttpResponse {
    match refused {
        Refused::TooMany => HttpResponse::TooManyRequests()
            .insert_header((header::RETRY_AFTER, "1"))
            .content_type(TEXT)
            .body("more requests than rate_limit allows\n"),
        Refused::Unauthenticated(schemes) => {
            let mut response = HttpResponse::Unauthorized();
            for scheme in schemes {
                response.append_header((header::WWW_AUTHENTICATE, *scheme));
            }
            response.content_type(TEXT).body("credentials are needed, or these are wrong\n")
        }
        Refused::Forbidden => HttpResponse::Forbidden().content_type(TEXT).body("not allowed to read this path\n"),
        Refused::Unavailable(why) => HttpResponse::ServiceUnavailable()
            .insert_header((header::RETRY_AFTER, "1"))
            .content_type(TEXT)
            .body(format!("{why}\n")),
    }
}
