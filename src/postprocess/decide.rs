//! Turns the resampled values of a line of voxels into labels or masks.
//!
//! Arithmetic is f32. If a decision is too close for f32, the voxel is decided again in f64, which
//! MONAI uses for all voxels.

use super::activation::Activation;
use crate::kernels::curve::{exp, sigmoid};
use crate::kernels::{self, Best};

/// Differences below this are decided in f64.
const CLOSE: f32 = 1e-5;

/// The smallest value above one half, which `torch.round` rounds to 1 for values from 0 to 1.
pub(super) const ABOVE_HALF: f32 = 0.5_f32.next_up();

/// How values become labels or masks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Rule {
    /// The sign of the difference of two classes.
    Sign,
    /// The class with the largest value.
    Argmax,
    /// The class with the largest value if that is at least this, else 0.
    Majority(f32),
    /// Each class compared with a threshold.
    Threshold(f32),
    /// The nearest whole number, halves to even (`torch.round`), of a single channel.
    Round,
}

/// Values of all channels along a line of output voxels.
pub(super) trait Line {
    /// Returns one channel in f32. The buffers must have the lengths of the input's and the output's
    /// lines.
    fn values<'s>(&self, channel: usize, buffers: &'s mut Buffers) -> &'s [f32];

    /// Returns one value computed in f64 and rounded once.
    fn exact(&self, channel: usize, index: usize) -> f32;
}

/// Buffers for the values of a line.
pub(super) struct Buffers {
    /// Has the length of an input line.
    pub blended: Vec<f32>,
    /// Has the length of an output line.
    pub values: Vec<f32>,
}

/// Buffers of one worker.
pub(super) struct Scratch {
    buffers: Buffers,
    best: Vec<f32>,
    second: Vec<f32>,
    activated: Vec<f32>,
}

impl Scratch {
    /// Creates buffers for lines of these lengths.
    pub fn new(input: usize, output: usize) -> Self {
        let buffers = Buffers { blended: vec![0.0; input], values: vec![0.0; output] };
        let [best, second, activated] = std::array::from_fn(|_| vec![0.0; output]);
        Self { buffers, best, second, activated }
    }

    /// Shortens the buffers for output lines of another length, at most the original one.
    pub fn shorten(&mut self, output: usize) {
        let Self { buffers, best, second, activated } = self;
        for buffer in [&mut buffers.values, best, second, activated] {
            buffer.resize(output, 0.0);
        }
    }
}

/// A rule, with the activation and the number of channels it applies to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Decision {
    pub rule: Rule,
    pub activation: Activation,
    pub channels: usize,
}

impl Decision {
    /// Returns the number of rows that [`decide`](Self::decide) writes.
    pub fn results(&self) -> usize {
        if let Rule::Threshold(_) = self.rule { self.channels } else { 1 }
    }

    /// Writes the results of one line, one row of bytes per result.
    pub fn decide<'o>(
        &self,
        line: &impl Line,
        scratch: &mut Scratch,
        out: &mut impl Iterator<Item = &'o mut [u8]>,
    ) {
        match self.rule {
            Rule::Threshold(t) if self.activation == Activation::Softmax => {
                self.softmax_beyond(line, t, scratch, out);
            }
            Rule::Threshold(t) => {
                for (channel, out) in (0..self.channels).zip(out) {
                    self.beyond(line, channel, t, scratch, out);
                }
            }
            rule => {
                let Some(out) = out.next() else { return };
                match rule {
                    Rule::Sign => sign(line, &mut scratch.buffers, out),
                    Rule::Round => round(line, &mut scratch.buffers, out),
                    _ => self.argmax(line, scratch, out),
                }
            }
        }
    }

    /// Applies a sigmoid, which creates ties in f32. A softmax keeps the order of classes and is
    /// skipped.
    fn activated(&self, value: f32) -> f32 {
        if self.activation == Activation::Sigmoid { sigmoid(value) } else { value }
    }

    fn beyond(
        &self,
        line: &impl Line,
        channel: usize,
        t: f32,
        scratch: &mut Scratch,
        out: &mut [u8],
    ) {
        let values = line.values(channel, &mut scratch.buffers);
        let close = match self.activation {
            Activation::Sigmoid => compare(values, out, |v| sigmoid(v) >= t, |v| sigmoid(v) - t),
            _ => compare(values, out, |v| v >= t, |v| v - t),
        };
        if close {
            for (index, (o, &v)) in out.iter_mut().zip(values).enumerate() {
                if (self.activated(v) - t).abs() < CLOSE {
                    *o = u8::from(self.activated(line.exact(channel, index)) >= t);
                }
            }
        }
    }

    /// Applies a softmax over the channels and a threshold: one pass for the sum, one for the channels.
    fn softmax_beyond<'o>(
        &self,
        line: &impl Line,
        t: f32,
        scratch: &mut Scratch,
        out: &mut impl Iterator<Item = &'o mut [u8]>,
    ) {
        let Scratch { buffers, best: largest, second: sum, .. } = scratch;
        largest.fill(f32::NEG_INFINITY);
        for channel in 0..self.channels {
            kernels::raise(largest, line.values(channel, buffers));
        }
        sum.fill(0.0);
        for channel in 0..self.channels {
            kernels::add_exponentials(sum, line.values(channel, buffers), largest);
        }
        for (channel, out) in (0..self.channels).zip(out) {
            let values = line.values(channel, buffers);
            let parts = values.iter().zip(&*largest).zip(&*sum);
            for (index, (o, ((&v, &m), &s))) in out.iter_mut().zip(parts).enumerate() {
                let value = exp(v - m) / s;
                *o = u8::from(value >= t);
                if (value - t).abs() < CLOSE {
                    let sum: f32 = (0..self.channels).map(|c| exp(line.exact(c, index) - m)).sum();
                    *o = u8::from(exp(line.exact(channel, index) - m) / sum >= t);
                }
            }
        }
    }

    fn argmax(&self, line: &impl Line, scratch: &mut Scratch, out: &mut [u8]) {
        let Scratch { buffers, best, second, activated } = scratch;
        out.fill(0);
        best.fill(f32::NEG_INFINITY);
        second.fill(f32::NEG_INFINITY);
        for channel in 0..self.channels {
            let values = line.values(channel, buffers);
            let mut so_far = Best { class: &mut *out, value: &mut *best, second: &mut *second };
            match self.activation {
                Activation::Sigmoid => {
                    kernels::sigmoids(activated, values);
                    kernels::take_better(&mut so_far, channel as u8, activated);
                }
                _ => kernels::take_better(&mut so_far, channel as u8, values),
            }
        }
        let least = if let Rule::Majority(t) = self.rule { t } else { f32::NEG_INFINITY };
        for (index, (o, (&b, &s))) in out.iter_mut().zip(best.iter().zip(&*second)).enumerate() {
            if b - s < CLOSE || (b - least).abs() < CLOSE {
                let (class, value) = self.exact_argmax(line, index);
                *o = if value >= least { class } else { 0 };
            } else if b < least {
                *o = 0;
            }
        }
    }

    fn exact_argmax(&self, line: &impl Line, index: usize) -> (u8, f32) {
        let value = |channel| self.activated(line.exact(channel, index));
        let mut best = (0, value(0));
        for channel in 1..self.channels {
            let value = value(channel);
            if value > best.1 {
                best = (channel as u8, value);
            }
        }
        best
    }
}

/// Writes whether each value is beyond a bound, and returns whether any value is close to it.
fn compare(
    values: &[f32],
    out: &mut [u8],
    beyond: impl Fn(f32) -> bool,
    distance: impl Fn(f32) -> f32,
) -> bool {
    let mut close = false;
    for (o, &v) in out.iter_mut().zip(values) {
        *o = u8::from(beyond(v));
        close |= distance(v).abs() < CLOSE;
    }
    close
}

fn sign(line: &impl Line, buffers: &mut Buffers, out: &mut [u8]) {
    let values = line.values(0, buffers);
    if kernels::positive(values, out, CLOSE) {
        for (index, (o, &v)) in out.iter_mut().zip(values).enumerate() {
            if v.abs() < CLOSE {
                *o = u8::from(line.exact(0, index) > 0.0);
            }
        }
    }
}

fn round(line: &impl Line, buffers: &mut Buffers, out: &mut [u8]) {
    let values = line.values(0, buffers);
    for (index, (o, &v)) in out.iter_mut().zip(values).enumerate() {
        // Relative, because labels can be as large as 255.
        let close = ((v - v.floor()) - 0.5).abs() < CLOSE * v.abs().max(1.0);
        let value = if close { line.exact(0, index) } else { v };
        *o = value.round_ties_even() as u8;
    }
}
