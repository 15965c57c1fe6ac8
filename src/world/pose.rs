//! How actions change the state of a robot, as V-JEPA 2-AC's planner has it: the pose of its hand and its gripper.

use std::f64::consts::FRAC_PI_2;

use crate::{Error, Result};

/// Numbers of a pose, and of an action on it: place (m), rotation (rad; about the fixed axes x, y and z, in this order) and gripper.
const POSE: usize = 7;

/// The state after an action. Of seven numbers each, they are a pose and its change: places add up, the action's rotation follows the
/// state's, and the gripper stays between 0 and 1. Other states have as many numbers as their actions, which add up.
///
/// # Errors
/// [`Error::BadInput`] for states of another number of values than actions, whose change is not known.
pub fn moved(state: &[f32], action: &[f32]) -> Result<Vec<f32>> {
    if state.len() != action.len() {
        return Err(Error::BadInput(format!(
            "how an action of {} numbers changes a state of {} is not known: give the state before each action",
            action.len(),
            state.len()
        )));
    }
    let mut next: Vec<f32> = state.iter().zip(action).map(|(s, a)| s + a).collect();
    if let &[_, _, _, a, b, c, _] = state {
        let turn = rotation(&[action[3], action[4], action[5]]);
        let turned = product(turn, rotation(&[a, b, c]));
        next[3..6].copy_from_slice(&angles(turned));
        next[POSE - 1] = next[POSE - 1].clamp(0.0, 1.0);
    }
    Ok(next)
}

/// How a cost changes with a state and with an action, `[state, action]`, where it changes by `slope` with the state after the action, which
/// [`moved`] gives. Where angles cannot be told apart it is taken not to change with rotations.
///
/// # Panics
/// When the three are not of one size, which [`moved`] refuses.
pub fn pulled_back(state: &[f32], action: &[f32], slope: &[f64]) -> [Vec<f64>; 2] {
    let mut slopes = [slope.to_vec(), slope.to_vec()];
    if let &[_, _, _, a, b, c, gripper] = state {
        let own = [[a, b, c], [action[3], action[4], action[5]]];
        let [state_turn, action_turn] = own.map(|angles| rotation(&angles));
        let turned = product(action_turn, state_turn);
        for (i, slopes) in slopes.iter_mut().enumerate() {
            for axis in 0..3 {
                let change = rotation_slope(&own[i], axis);
                let change = match i {
                    0 => product(action_turn, change),
                    _ => product(change, state_turn),
                };
                let angles = angles_slope(turned, change);
                let pairs = angles.iter().zip(&slope[3..6]);
                slopes[3 + axis] = pairs.map(|(angle, slope)| angle * slope).sum();
            }
            if !(0.0..=1.0).contains(&(gripper + action[POSE - 1])) {
                slopes[POSE - 1] = 0.0;
            }
        }
    }
    slopes
}

type Matrix = [[f64; 3]; 3];

/// `Rz(c) · Ry(b) · Rx(a)`.
fn rotation(&[a, b, c]: &[f32; 3]) -> Matrix {
    rotation_of([a, b, c].map(f64::from))
}

fn rotation_of(angles: [f64; 3]) -> Matrix {
    let [[sa, ca], [sb, cb], [sc, cc]] = angles.map(|angle| [angle.sin(), angle.cos()]);
    [
        [cc * cb, cc * sb * sa - sc * ca, cc * sb * ca + sc * sa],
        [sc * cb, sc * sb * sa + cc * ca, sc * sb * ca - cc * sa],
        [-sb, cb * sa, cb * ca],
    ]
}

/// How the [`rotation`] changes with one of its angles.
fn rotation_slope(angles: &[f32; 3], axis: usize) -> Matrix {
    // Every entry is constant or a sine or cosine in an angle, so that its slope is half the difference of what a quarter turn more and less
    // make of it.
    let quarter = |by: f64| {
        let mut at = angles.map(f64::from);
        at[axis] += by * FRAC_PI_2;
        rotation_of(at)
    };
    let (more, less) = (quarter(1.0), quarter(-1.0));
    [0, 1, 2].map(|row| [0, 1, 2].map(|column| 0.5 * (more[row][column] - less[row][column])))
}

fn product(left: Matrix, right: Matrix) -> Matrix {
    let dot = |row: [f64; 3], column: usize| (0..3).map(|i| row[i] * right[i][column]).sum();
    left.map(|row| [0, 1, 2].map(|column| dot(row, column)))
}

/// Cosine of the second angle below which the others cannot be told apart.
const LOCKED: f64 = 1e-7;

/// The angles whose [`rotation`] this is. Where the second is a right angle the third is taken for 0, as scipy does.
fn angles(m: Matrix) -> [f32; 3] {
    let cos = m[0][0].hypot(m[1][0]);
    let second = (-m[2][0]).atan2(cos);
    let all = match cos > LOCKED {
        true => [m[2][1].atan2(m[2][2]), second, m[1][0].atan2(m[0][0])],
        false => [(-m[1][2]).atan2(m[1][1]), second, 0.0],
    };
    all.map(|angle| angle as f32)
}

/// How the [`angles`] of `m` change when it changes by `d`.
fn angles_slope(m: Matrix, d: Matrix) -> [f64; 3] {
    let cos = m[0][0].hypot(m[1][0]);
    if cos <= LOCKED {
        return [0.0; 3];
    }
    let cos_slope = (m[0][0] * d[0][0] + m[1][0] * d[1][0]) / cos;
    // Of atan2(y, x): (x·dy − y·dx) / (x² + y²).
    let turn = |[y, x]: [f64; 2], [dy, dx]: [f64; 2]| (x * dy - y * dx) / (x * x + y * y);
    [
        turn([m[2][1], m[2][2]], [d[2][1], d[2][2]]),
        turn([-m[2][0], cos], [-d[2][0], cos_slope]),
        turn([m[1][0], m[0][0]], [d[1][0], d[0][0]]),
    ]
}

#[cfg(test)]
mod tests {
    use std::f32::consts::{FRAC_PI_2, FRAC_PI_4, PI};

    use super::*;

    fn near(found: &[f32], wanted: &[f32]) {
        assert_eq!(found.len(), wanted.len());
        for (found, wanted) in found.iter().zip(wanted) {
            assert!((found - wanted).abs() < 1e-6, "{found} for {wanted}");
        }
    }

    #[test]
    fn places_add_up_and_the_gripper_has_ends() {
        let state = [0.1, -0.2, 0.3, 0.0, 0.0, 0.0, 0.5];
        let moved = |action: [f32; 7]| moved(&state, &action).unwrap();
        near(
            &moved([0.05, 0.1, -0.05, 0.0, 0.0, 0.0, 0.25]),
            &[0.15, -0.1, 0.25, 0.0, 0.0, 0.0, 0.75],
        );
        assert_eq!(moved([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.75])[6], 1.0);
        assert_eq!(moved([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -0.75])[6], 0.0);
    }

    #[test]
    fn rotations_about_fixed_axes_follow_each_other() {
        let turned = |first: [f32; 3], then: [f32; 3]| {
            let pose = |[a, b, c]: [f32; 3]| [0.0, 0.0, 0.0, a, b, c, 0.0];
            moved(&pose(first), &pose(then)).unwrap()[3..6].to_vec()
        };
        // About one axis angles add up, on the other side of half a turn.
        near(
            &turned([0.0, 0.0, 3.0], [0.0, 0.0, 1.0]),
            &[0.0, 0.0, 4.0 - 2.0 * PI],
        );
        // x, then y, then z is what the angles say themselves.
        near(&turned([0.4, 0.0, 0.0], [0.0, 0.3, 0.0]), &[0.4, 0.3, 0.0]);
        near(
            &turned([0.4, 0.3, 0.0], [0.0, 0.0, -1.0]),
            &[0.4, 0.3, -1.0],
        );
        // A quarter about z, then one about x: x goes to z, z to −y, so that the second angle is −π/2.
        near(
            &turned([0.0, 0.0, FRAC_PI_2], [FRAC_PI_2, 0.0, 0.0])[1..],
            &[-FRAC_PI_2, 0.0],
        );
        // What the angles stand for stays where they cannot be told apart.
        let locked = turned([FRAC_PI_4, 0.0, 0.0], [0.0, FRAC_PI_2, 0.0]);
        near(&locked, &[FRAC_PI_4, FRAC_PI_2, 0.0]);
        let all = turned([0.3, -0.7, 1.1], [-0.2, 0.5, 0.9]);
        let (found, wanted) = (
            rotation(&[all[0], all[1], all[2]]),
            product(rotation(&[-0.2, 0.5, 0.9]), rotation(&[0.3, -0.7, 1.1])),
        );
        for (found, wanted) in found.iter().flatten().zip(wanted.iter().flatten()) {
            assert!((found - wanted).abs() < 1e-6);
        }
    }

    #[test]
    fn slopes_are_the_finite_differences() {
        let state = [0.1f32, -0.2, 0.3, 0.4, -0.7, 1.1, 0.5];
        let action = [0.05f32, 0.1, -0.05, -0.2, 0.5, 0.9, 0.25];
        let slope = [1.0, -2.0, 0.5, 1.5, -0.75, 2.5, 3.0];
        let cost = |state: &[f32], action: &[f32]| {
            let next = moved(state, action).unwrap();
            let pairs = next.iter().zip(slope);
            pairs.map(|(&v, slope)| f64::from(v) * slope).sum::<f64>()
        };
        let [of_state, of_action] = pulled_back(&state, &action, &slope);
        const STEP: f32 = 1.0 / 256.0;
        let bent = |values: &[f32; 7], at: usize, by: f32| {
            let mut bent = *values;
            bent[at] += by;
            bent
        };
        for at in 0..7 {
            let by = |step: f32| {
                [
                    cost(&bent(&state, at, step), &action),
                    cost(&state, &bent(&action, at, step)),
                ]
            };
            let (up, down) = (by(STEP), by(-STEP));
            for (i, said) in [of_state[at], of_action[at]].into_iter().enumerate() {
                let measured = (up[i] - down[i]) / f64::from(2.0 * STEP);
                // The third derivative, and the rounding of f32.
                assert!(
                    (measured - said).abs() < 5e-4,
                    "{at}: {measured} for {said}"
                );
            }
        }
        // A gripper that is pushed beyond its end does not feel it.
        let [of_state, of_action] = pulled_back(&state, &bent(&action, 6, 0.5), &slope);
        assert_eq!((of_state[6], of_action[6]), (0.0, 0.0));
        assert_eq!(pulled_back(&[1.0], &[2.0], &[0.5]), [[0.5], [0.5]]);
    }

    #[test]
    fn other_states_add_up_or_are_refused() {
        assert_eq!(moved(&[1.0, 2.0], &[0.5, -3.0]), Ok(vec![1.5, -1.0]));
        let code = |result: Result<Vec<f32>>| result.map_err(|e| e.code());
        assert_eq!(code(moved(&[1.0, 2.0, 3.0], &[0.5])), Err("bad-input"));
    }
}
