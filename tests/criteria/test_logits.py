import pytest
import torch
import torch.nn.functional as F

from limbeck.criteria import DIST, DKD, KD, NKD, WTTM, GuidedKD

N = torch.arange(20, dtype=torch.float64).view(4, 5)
STUDENT, TEACHER = torch.sin(1.1 * N), 2 * torch.cos(0.9 * N)
LABELS = torch.tensor([0, 1, 3, 1])
RIGHT = TEACHER.argmax(1)
SHIFT, SCALE = torch.tensor([[3.0], [-7.0], [0.5], [2.0]]), torch.tensor([[0.1], [1.0], [30.0], [4.0]])

without_truth = pytest.mark.parametrize("criterion", [KD(), DIST(), WTTM()], ids=str)
with_truth = pytest.mark.parametrize("criterion", [DKD(), NKD(), GuidedKD()], ids=str)


def gradient(function, student=STUDENT):
    student = student.clone().requires_grad_()
    value = function(student)
    return value, torch.autograd.grad(value, student)[0]


# --- every criterion on logits ---


@without_truth
def test_positions_of_a_map_of_logits_count_as_images(criterion):
    student, teacher = (logits.view(2, 2, 5).transpose(1, 2).unsqueeze(-1) for logits in (STUDENT, TEACHER))
    assert student.shape == (2, 5, 2, 1)
    torch.testing.assert_close(criterion(student, teacher), criterion(STUDENT, TEACHER))


@with_truth
def test_positions_of_a_map_of_logits_have_a_class_each(criterion):
    student, teacher = (logits.view(2, 2, 5).transpose(1, 2).unsqueeze(-1) for logits in (STUDENT, TEACHER))
    expected = criterion(STUDENT, TEACHER, LABELS)
    torch.testing.assert_close(criterion(student, teacher, LABELS.view(2, 2, 1)), expected)


@with_truth
def test_images_without_a_class_are_left_out(criterion):
    labels = RIGHT.clone()
    labels[2] = -1
    value, found = gradient(lambda student: criterion(student, TEACHER, labels))
    others = [0, 1, 3]
    torch.testing.assert_close(value, criterion(STUDENT[others], TEACHER[others], RIGHT[others]))
    assert found[others].all()
    assert not found[2].any()


@with_truth
def test_batch_without_any_class_gives_zero(criterion):
    value, found = gradient(lambda student: criterion(student, TEACHER, torch.full((4,), -100)))
    assert value == 0
    assert not found.any()


@pytest.mark.parametrize("criterion", [KD(), DIST(), DKD(), NKD(), GuidedKD(), WTTM()], ids=str)
@pytest.mark.parametrize(("student", "teacher"), [((2, 5), (2, 6)), ((2, 5), (3, 5)), ((5,), (5,))])
def test_logits_of_other_classes_are_refused_with_the_remedy(criterion, student, teacher):
    truth = (torch.zeros(2, dtype=torch.long),) if hasattr(criterion, "needs_truth") else ()
    with pytest.raises(
        ValueError, match=r"compares logits \(B, K\) of the same classes; student has .* give both models"
    ):
        criterion(torch.zeros(student), torch.zeros(teacher), *truth)


@pytest.mark.parametrize(
    ("truth", "given"),
    [
        (torch.zeros(3, dtype=torch.long), r"\(3,\)"),
        (torch.zeros(4), r"\(4,\)"),
        (torch.zeros(4, 5, dtype=torch.long), r"\(4, 5\)"),
        ([0, 1, 2, 3], "list"),
        (None, "NoneType"),
    ],
    ids=["too few", "floats", "one hot", "list", "none"],
)
@with_truth
def test_truth_that_is_no_class_for_each_image_is_refused(criterion, truth, given):
    message = f"{type(criterion).__name__} needs the class of each of the 4 rows .* not {given}"
    with pytest.raises(ValueError, match=message):
        criterion(STUDENT, TEACHER, truth)


def test_dist_of_one_image_is_refused():
    with pytest.raises(ValueError, match=r"DIST relates the images of a batch .* needs 2 or more; this batch has 1"):
        DIST()(STUDENT[:1], TEACHER[:1])


# --- KD ---


@pytest.mark.parametrize("temperature", [1, 4, 20])
def test_identical_logits_give_zero(temperature):
    assert KD(temperature)(STUDENT, STUDENT) == 0


@pytest.mark.parametrize("criterion", [KD(), DIST()], ids=str)
def test_constant_added_to_a_samples_logits_changes_nothing(criterion):
    torch.testing.assert_close(criterion(STUDENT + SHIFT, TEACHER - SHIFT), criterion(STUDENT, TEACHER))


def test_square_of_the_temperature_keeps_the_size_of_the_gradient():
    sizes = [gradient(lambda s, t=temperature: KD(t)(s, TEACHER))[1].norm().item() for temperature in (20, 200)]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.05)


@pytest.mark.parametrize("make", [KD, lambda standardise: lambda s, t: DKD(standardise=standardise)(s, t, LABELS)])
def test_standardised_logits_ignore_scale_and_shift_of_each_image(make):
    changed = STUDENT * SCALE + SHIFT, TEACHER * SCALE.flip(0) - SHIFT
    exact, other = make(standardise=True), make(standardise=False)
    torch.testing.assert_close(exact(*changed), exact(STUDENT, TEACHER), rtol=1e-5, atol=1e-5)
    assert not torch.isclose(other(*changed), other(STUDENT, TEACHER), rtol=0.1)


# --- DIST ---


@pytest.mark.parametrize("temperature", [1, 4])
def test_relation_between_classes_ignores_scale_and_shift_of_the_probabilities(temperature):
    p = F.softmax(TEACHER / temperature, 1)
    shrunk = 0.3 * p + 0.7 / 5  # the same sum
    student = temperature * shrunk.log()
    assert DIST(1, 0, temperature)(student, TEACHER) < 1e-4  # not 0, for its eps
    assert KD(temperature)(student, TEACHER) > 1e-3


def test_relation_between_images_is_that_between_classes_of_the_transposed_table():
    p_student, p_teacher = (F.softmax(logits, 1) for logits in (STUDENT, TEACHER))
    expected = (
        1
        - torch.stack([torch.corrcoef(torch.stack([p_student[:, k], p_teacher[:, k]]))[0, 1] for k in range(5)]).mean()
    )
    torch.testing.assert_close(DIST(0, 1)(STUDENT, TEACHER), expected, rtol=1e-5, atol=1e-6)


# --- DKD and NKD ---


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kd_is_its_target_part_and_the_others_by_the_teachers_doubt(temperature):
    for student, teacher, label in zip(STUDENT.split(1), TEACHER.split(1), LABELS.split(1), strict=True):
        target, others = (DKD(*w, temperature)(student, teacher, label) for w in ((1, 0), (0, 1)))
        doubt = 1 - F.softmax(teacher / temperature, 1)[0, label]
        torch.testing.assert_close(KD(temperature)(student, teacher), target + doubt.squeeze() * others)


def others_of_nkd(student, teacher):
    return NKD(others=2, temperature=3)(student, teacher, LABELS) - NKD(others=1, temperature=3)(
        student, teacher, LABELS
    )


@pytest.mark.parametrize(
    "others", [others_of_nkd, lambda student, teacher: DKD(0, 1)(student, teacher, LABELS)], ids=["NKD", "DKD"]
)
def test_part_of_the_other_classes_ignores_the_logit_of_the_true_one(others):
    value, found = gradient(lambda student: others(student, TEACHER))
    changed = STUDENT.scatter(1, LABELS[:, None], 5.0), TEACHER.scatter(1, LABELS[:, None], -5.0)
    torch.testing.assert_close(others(*changed), value)
    assert not found.gather(1, LABELS[:, None]).any()
    assert found.any()


def test_part_of_the_other_classes_in_nkd_is_least_where_student_equals_teacher():
    value, found = gradient(lambda student: others_of_nkd(student, TEACHER), TEACHER)
    torch.testing.assert_close(found, torch.zeros_like(found))
    assert others_of_nkd(TEACHER + 0.1 * STUDENT, TEACHER) > value > 0


@pytest.mark.parametrize("temperature", [1, 3])  # which is that of the other classes alone
def test_target_part_of_nkd_is_the_cross_entropy_by_the_teachers_trust(temperature):
    trust = F.softmax(TEACHER, 1).gather(1, LABELS[:, None]).squeeze()
    expected = (trust * F.cross_entropy(STUDENT, LABELS, reduction="none")).mean()
    torch.testing.assert_close(NKD(0, temperature)(STUDENT, TEACHER, LABELS), expected)


# --- GuidedKD ---


def test_guided_kd_is_kd_over_the_images_on_which_the_teacher_is_right():
    labels = RIGHT.clone()
    labels[1] = (labels[1] + 1) % 5
    value, found = gradient(lambda student: GuidedKD(2)(student, TEACHER, labels))
    right = [0, 2, 3]
    torch.testing.assert_close(value, KD(2)(STUDENT[right], TEACHER[right]))
    assert not found[1].any()


def test_guided_kd_is_zero_where_the_teacher_is_never_right():
    value, found = gradient(lambda student: GuidedKD()(student, TEACHER, (RIGHT + 1) % 5))
    assert value == 0
    assert not found.any()


# --- two classes ---


@pytest.mark.parametrize("criterion", [KD(standardise=True), DKD(standardise=True)], ids=str)
def test_standardised_logits_of_two_classes_are_refused(criterion):
    truth = (LABELS % 2,) if hasattr(criterion, "needs_truth") else ()
    with pytest.raises(ValueError, match=r"logits of two classes are 0\.71 and -0.71, whatever they were.* leave"):
        criterion(STUDENT[:, :2], TEACHER[:, :2], *truth)


def test_dkd_of_two_classes_is_kd_and_is_refused_where_only_the_others_count():
    student, teacher, labels = STUDENT[:, :2], TEACHER[:, :2], LABELS % 2
    torch.testing.assert_close(DKD()(student, teacher, labels), KD()(student, teacher))
    with pytest.raises(ValueError, match="target=0 compares the other classes alone, and of two classes there is only"):
        DKD(target=0)(student, teacher, labels)


# --- high temperatures ---


def without_label(logits):
    return torch.stack([torch.cat([row[:label], row[label + 1 :]]) for row, label in zip(logits, LABELS, strict=True)])


@pytest.mark.parametrize("temperature", [1.0, 1000.0])
def test_the_true_class_is_left_out_at_any_temperature(temperature):
    student, teacher = without_label(STUDENT), without_label(TEACHER)
    expected = KD(temperature)(student, teacher)
    torch.testing.assert_close(DKD(0, 1, temperature)(STUDENT, TEACHER, LABELS), expected)
    entropy = F.cross_entropy(student / temperature, (teacher / temperature).softmax(1)) * temperature**2
    found = NKD(1, temperature)(STUDENT, TEACHER, LABELS) - NKD(0, temperature)(STUDENT, TEACHER, LABELS)
    torch.testing.assert_close(found, entropy)


# --- WTTM ---


def test_wttm_is_zero_at_the_softened_teacher_and_counts_images_more_where_that_is_unsure():
    value, found = gradient(lambda student: WTTM(0.3)(student, TEACHER), 0.3 * TEACHER)
    torch.testing.assert_close(value, torch.zeros_like(value), atol=1e-12, rtol=0)
    assert found.abs().max() < 1e-12
    one, other = torch.tensor([[9.0, 0, 0, 0, 0]]), torch.tensor([[1.0, 0, 0, 0, 0]])
    shares = [WTTM(0.3)(s, t) / WTTM(0.3, weighed=False)(s, t) for s, t in ((other, one), (one, other))]
    assert 1 < shares[0] < shares[1]
