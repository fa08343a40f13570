//! Sends an answer, or what a fault makes of it.

use std::io;

use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::Doors;
use crate::kata::fault::Fault;
use crate::kata::kind::Endpoint;

/// What a flood is made of, and how much of it. A static: a constant would lie in the future of every connection.
static BLOCK: [u8; 64 << 10] = [b'A'; 64 << 10];
pub(super) const FLOOD_BYTES: u64 = 1 << 30;

/// Sends the bytes as slowly as the fault wants them. Gives whether the connection is still of use.
pub(super) async fn send(
    doors: &Doors,
    endpoint: Endpoint,
    writer: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
    fault: Option<&Fault>,
) -> io::Result<bool> {
    match fault {
        Some(fault @ Fault::Drip(pause)) => {
            for byte in bytes {
                writer.write_all(&[*byte]).await?;
                doors.linger(endpoint, fault, *pause).await;
            }
        }
        Some(Fault::CutShort) => {
            writer.write_all(bytes.get(..bytes.len() / 2).unwrap_or_default()).await?;
            writer.flush().await?;
            return Ok(false);
        }
        _ => writer.write_all(bytes).await?,
    }
    Ok(true)
}

/// Sends a GiB after these bytes, which have announced it.
pub(super) async fn flood(writer: &mut (impl AsyncWrite + Unpin), head: &[u8]) -> io::Result<()> {
    writer.write_all(head).await?;
    fill(writer, FLOOD_BYTES).await
}

/// Sends this many bytes.
pub(super) async fn fill(writer: &mut (impl AsyncWrite + Unpin), count: u64) -> io::Result<()> {
    let mut left = count;
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(BLOCK.len());
        writer.write_all(BLOCK.get(..length).unwrap_or(&BLOCK)).await?;
        left -= u64::try_from(length).unwrap_or(left);
    }
    Ok(())
}

/// Puts two bytes that are no UTF-8 into the first quoted text of two letters or more, or into the first of these
/// words that there is. The length stays.
pub(super) fn spoil_text(bytes: &mut [u8], from: usize, words: &[&str]) {
    let quoted = |at: usize| {
        bytes.get(at) == Some(&b'"')
            && bytes
                .get(at + 1..at + 3)
                .is_some_and(|two| two.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_'))
    };
    let place = if words.is_empty() {
        (from..bytes.len()).find(|at| quoted(*at)).map(|at| at + 1)
    } else {
        words.iter().find_map(|word| bytes.windows(word.len()).position(|window| window == word.as_bytes()))
    };
    if let Some(two) = place.and_then(|at| bytes.get_mut(at..at + 2)) {
        two.copy_from_slice(&[0xff, 0xfe]);
    }
}
