//! A body that is handed to its connection piece by piece.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, MessageBody};
use actix_web::web::Bytes;

/// How much is copied into a connection's buffer at once.
const PIECE: usize = 32 << 10;

/// A body that all who asked for it share. A connection copies what it writes, and one whose client does not read would
/// keep a whole copy: megabytes for each.
#[derive(Debug)]
pub(super) struct Pieces {
    rest: Bytes,
}

impl Pieces {
    /// The whole body.
    pub(super) fn of(body: Bytes) -> Self {
        Self { rest: body }
    }
}

impl MessageBody for Pieces {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.rest.len() as u64)
    }

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        let length = self.rest.len().min(PIECE);
        let piece = self.rest.split_to(length);
        Poll::Ready((!piece.is_empty()).then_some(Ok(piece)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_the_body_and_none_is_large() {
        for length in [0, 1, PIECE, PIECE + 1, 3 * PIECE + 5] {
            let body: Bytes = (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect::<Vec<_>>().into();
            let mut pieces = Pieces::of(body.clone());
            assert_eq!(pieces.size(), BodySize::Sized(length as u64));
            let mut joined = Vec::new();
            let context = &mut Context::from_waker(std::task::Waker::noop());
            while let Poll::Ready(Some(Ok(piece))) = Pin::new(&mut pieces).poll_next(context) {
                assert!(piece.len() <= PIECE && !piece.is_empty());
                joined.extend(piece);
            }
            assert_eq!(joined, body);
        }
    }
}
