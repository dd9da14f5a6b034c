// SPDX-License-Identifier: Apache-2.0
#include "csrc/ops/einsum_equation.h"

#include <algorithm>
#include <cctype>

namespace fi {
namespace {

constexpr int kEllipsis = -1;

struct Parser {
  const std::string& equation;
  EinsumEquation e;
  std::string letters;  // label → letter
  int dots = 0;         // axes that the widest ellipsis stands for
  int first_dot = 0;    // their labels: first_dot .. first_dot + dots - 1

  int label(char c) {
    const size_t at = letters.find(c);
    if (at != std::string::npos) return static_cast<int>(at);
    letters.push_back(c);
    return static_cast<int>(letters.size()) - 1;
  }

  // One term: labels, kEllipsis for "...".
  std::vector<int> term(const std::string& text) {
    std::vector<int> labels;
    for (size_t i = 0; i < text.size(); ++i) {
      if (text.compare(i, 3, "...") == 0) {
        check_model(std::find(labels.begin(), labels.end(), kEllipsis) == labels.end(), "equation '", equation,
                    "' has two ellipses in one term");
        labels.push_back(kEllipsis);
        i += 2;
      } else {
        check_model(std::isalpha(static_cast<unsigned char>(text[i])), "equation '", equation, "' has an unexpected '",
                    text[i], "'");
        labels.push_back(label(text[i]));
      }
    }
    return labels;
  }
};

bool has_ellipsis(const std::vector<int>& t) { return std::find(t.begin(), t.end(), kEllipsis) != t.end(); }

// The ellipsis stands for the last `width` of the common broadcast axes.
std::vector<int> spelled_out(const std::vector<int>& t, int first_dot, int dots, int width) {
  std::vector<int> labels;
  for (int l : t) {
    if (l != kEllipsis)
      labels.push_back(l);
    else
      for (int k = dots - width; k < dots; ++k) labels.push_back(first_dot + k);
  }
  return labels;
}

// Without "->": the ellipsis, then every label that occurs once, in alphabetical order.
std::vector<int> implied_output(const Parser& p, const std::vector<std::vector<int>>& terms) {
  std::string once;
  bool dots = false;
  std::vector<int> count(p.letters.size(), 0);
  for (const auto& t : terms)
    for (int l : t) l == kEllipsis ? dots = true : ++count[l] != 0;
  for (size_t l = 0; l < count.size(); ++l)
    if (count[l] == 1) once.push_back(p.letters[l]);
  std::sort(once.begin(), once.end());
  std::vector<int> output;
  if (dots) output.push_back(kEllipsis);
  for (char c : once) output.push_back(static_cast<int>(p.letters.find(c)));
  return output;
}

void unify(EinsumEquation& e, int label, int64_t extent, bool broadcasts, const std::string& equation) {
  int64_t& known = e.extent[label];
  if (known < 0 || (broadcasts && known == 1)) known = extent;
  check(known == extent || (broadcasts && extent == 1), "equation '", equation, "' gives one label the extents ", known,
        " and ", extent);
}

}  // namespace

EinsumEquation parse_einsum(const std::string& equation, std::span<const Shape> shapes) {
  std::string text;
  std::copy_if(equation.begin(), equation.end(), std::back_inserter(text), [](char c) { return c != ' '; });
  Parser p{equation, {}, {}, 0, 0};
  const size_t arrow = text.find("->");
  std::vector<std::vector<int>> terms;
  const std::string left = text.substr(0, arrow);
  for (size_t at = 0;;) {
    const size_t comma = left.find(',', at);
    terms.push_back(p.term(left.substr(at, comma - at)));
    if (comma == std::string::npos) break;
    at = comma + 1;
  }
  check_model(terms.size() == shapes.size(), "equation '", equation, "' has ", terms.size(), " terms for ",
              shapes.size(), " inputs");
  std::vector<int> output = arrow == std::string::npos ? implied_output(p, terms) : p.term(text.substr(arrow + 2));
  std::vector<int> width(terms.size(), 0);
  for (size_t i = 0; i < terms.size(); ++i) {
    const int named = static_cast<int>(terms[i].size()) - has_ellipsis(terms[i]);
    width[i] = shapes[i].rank() - named;
    check(has_ellipsis(terms[i]) ? width[i] >= 0 : width[i] == 0, "equation '", equation, "' does not fit input ", i,
          " ", shapes[i]);
    p.dots = std::max(p.dots, width[i]);
  }
  p.first_dot = static_cast<int>(p.letters.size());
  EinsumEquation& e = p.e;
  e.extent.assign(p.first_dot + p.dots, -1);
  for (size_t i = 0; i < terms.size(); ++i) {
    e.terms.push_back(spelled_out(terms[i], p.first_dot, p.dots, width[i]));
    for (size_t k = 0; k < e.terms[i].size(); ++k)
      unify(e, e.terms[i][k], shapes[i][static_cast<int>(k)], e.terms[i][k] >= p.first_dot, equation);
  }
  e.output = spelled_out(output, p.first_dot, p.dots, p.dots);
  for (size_t k = 0; k < e.output.size(); ++k) {
    const int l = e.output[k];
    check_model(e.extent[l] >= 0, "equation '", equation, "' has an output label that no input has");
    check_model(std::find(e.output.begin(), e.output.begin() + k, l) == e.output.begin() + k, "equation '", equation,
                "' has an output label twice");
  }
  return e;
}

}  // namespace fi
